"""Pictures from words, for many callers: one drawing at a time, marked, and looked up in banks before it leaves."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

from search import messages as m
from search.config import DrawSection
from search.errors import NotReady, Overloaded
from search.messages import BadRequest
from search.moderation import Moderation
from search.uploads import Uploads
from textmm import checkpoint
from textmm.encoder import Encoder
from textmm.marks import marked_png
from textmm.text_to_image.choosing import CannotDraw, Drawn, ranked
from textmm.text_to_image.generator import NICE, Generator
from textmm.text_to_image.named import NamedGenerator, find_generator


class Drawing:
    """A generator is loaded when it is first asked for: whoever never draws does not hold its weights."""

    def __init__(
        self,
        config: DrawSection,
        encoder: Encoder,
        load: Callable[[str], Encoder],
        uploads: Uploads,
        moderation: Moderation | None,
    ) -> None:
        """`load`: a model by its name, where a generator's words are not read by `encoder`. `moderation` looks into the
        banks of the config; None: nothing does. Raises ValueError for an unknown generator."""
        self._config, self._encoder, self._load = config, encoder, load
        self._uploads, self._moderation = uploads, moderation
        self._named = find_generator(config.generator) if config.generator else None
        self._loaded: tuple[Generator, Encoder] | None = None
        self._turn, self._waiting, self._counting = threading.Lock(), 0, threading.Lock()

    @property
    def name(self) -> str | None:
        """Of the generator; None: nothing is drawn here."""
        return None if self._named is None else self._named.name

    def draw(self, request: m.DrawRequest) -> m.DrawResponse:
        """The n best pictures for the words. Raises BadRequest, CannotDraw, Overloaded, NotReady, ImageUnreadable,
        ImageTooLarge."""
        if self._named is None:
            raise NotReady('this server draws nothing: config.toml says [draw] generator = ""')
        if request.model is not None and request.model not in (self._named.name, self._named.generator_id):
            raise BadRequest(
                f"model {request.model!r} draws nothing here; this server has {self._named.name}", "model"
            )
        given = [request.image] if isinstance(request.image, str) else request.image or []
        start = [self._uploads.decode(self._uploads.bytes_of(one)) for one in given]
        seed = secrets.randbelow(2**53) if request.seed is None else request.seed
        with self._my_turn():
            generator, encoder = self._ready(self._named)
            size = "{}x{}".format(*generator.size)
            if request.size not in ("auto", size):
                raise BadRequest(f"size {request.size!r}: {generator.generator_id} draws {size}", "size")
            chosen = self._chosen(generator, encoder, self._named.least_score, request, seed, start)
        data = [
            m.DrawnImage(b64_json=base64.b64encode(png).decode(), seed=one.seed, score=one.score)
            for one, png in chosen
        ]
        return m.DrawResponse(
            created=int(time.time()), data=data, seed=seed, model=generator.generator_id, size=size
        )

    def _chosen(
        self,
        generator: Generator,
        encoder: Encoder,
        at_least: float,
        request: m.DrawRequest,
        seed: int,
        start: Sequence[Image.Image],
    ) -> list[tuple[Drawn, bytes]]:
        """The best that no bank knows, as marked PNG."""
        candidates = ranked(
            generator,
            encoder,
            request.prompt,
            request.n,
            seed,
            at_least=at_least,
            start=start,
            strength=request.strength,
        )
        chosen = []
        for one in candidates:
            png = marked_png(one.picture, tool=generator.generator_id)
            if not self._is_known(png):
                chosen.append((one, png))
            if len(chosen) == request.n:
                return chosen
        if not chosen:
            raise CannotDraw(
                f"all {len(candidates)} pictures drawn for {request.prompt!r} are known to a bank"
            )
        return chosen

    def _is_known(self, png: bytes) -> bool:
        if self._moderation is None or not self._config.banks:
            return False
        request = m.LookupRequest(banks=list(self._config.banks))
        return bool(self._moderation.look_up(request, image=png).matches)

    def _ready(self, named: NamedGenerator) -> tuple[Generator, Encoder]:
        """The generator, and what reads its words and finds the best pictures: behind those that search."""
        if self._loaded is None:
            own = not named.words or self._encoder.model_id == checkpoint.model_id(
                checkpoint.find(named.words)
            )
            encoder = (self._encoder if own else self._load(named.words)).in_background(NICE)
            self._loaded = named.load(encoder, threads=self._config.threads), encoder
        return self._loaded

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        with self._counting:
            if self._waiting > self._config.queue:
                raise Overloaded(
                    f"{self._waiting} drawings wait, the queue holds {self._config.queue}: try again soon"
                )
            self._waiting += 1
        try:
            with self._turn:
                yield
        finally:
            with self._counting:
                self._waiting -= 1
