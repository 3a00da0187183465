"""Request and response types: parse, validate, JSON, OpenAPI. The server and the SDK share them.

Unknown request fields are refused by name. Fields are added, never given another meaning.
"""

from search.messages.catalogue import *
from search.messages.chat import *
from search.messages.embeddings import *
from search.messages.errors import *
from search.messages.message import *
from search.messages.moderation import *
from search.messages.pictures import *
from search.messages.searching import *
