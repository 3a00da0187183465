"""What keys and collection names may look like."""

from __future__ import annotations

import re
import unicodedata

KEY_LENGTH = 512
NAME = re.compile(r"[^\W_][\w.\-]{0,63}")


def check_key(key: str) -> None:
    """ValueError that says what is wrong with an image's key.

    1-512 characters of any Unicode but control characters; `/` makes a path, without empty, `.` or `..` parts.
    """
    if not 1 <= len(key) <= KEY_LENGTH:
        raise ValueError(f"a key has 1 to {KEY_LENGTH} characters, this one {len(key)}")
    bad = next((c for c in key if unicodedata.category(c) in ("Cc", "Cs")), None)
    if bad is not None:
        raise ValueError(f"key {key!r} holds the control character {bad!r}")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"key {key!r} has an empty, '.' or '..' part between slashes")


def check_name(name: str) -> None:
    """ValueError that says what is wrong with a collection's name."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"collection name {name!r}: 1 to 64 letters, digits, '_', '-' or '.', beginning with a letter or digit"
        )
