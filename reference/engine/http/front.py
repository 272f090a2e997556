"""What all endpoints share: the engine, who waits for what, and how much may be asked at once."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import cast

from starlette.requests import Request

from gaugeblock.reference.engine.http.answers import Answer
from gaugeblock.reference.engine.http.errors import ApiError, bad, overloaded
from gaugeblock.reference.engine.http.fields import Fields
from gaugeblock.reference.engine.http.generation import Generation
from gaugeblock.reference.engine.http.mailbox import Mailbox
from gaugeblock.reference.engine.http.metrics import Metrics
from gaugeblock.reference.engine.http.plan import Plan
from gaugeblock.reference.engine.http.protocol import EngineLike, context_length, served_name
from gaugeblock.reference.engine.http.response_store import ResponseStore

LONG_TEXT = 2000  # characters from which encoding takes long enough to keep it off the event loop


class Front:
    """Lives as long as the application; used on its event loop only."""

    def __init__(self, engine: EngineLike) -> None:
        self.engine = engine
        self.tokenizer = engine.tokenizer
        self.model = served_name(engine.config)
        self.vocab_size = engine.model_config.vocab_size
        self.context_length = context_length(engine)
        self.capacity = engine.config.max_running_requests + engine.config.max_queued_requests
        self.created = int(time.time())
        self.metrics = Metrics(engine)
        self.responses = ResponseStore()
        self.tasks: set[asyncio.Task[None]] = set()
        self._generations: dict[str, Generation] = {}
        self._live: dict[str, Answer] = {}  # by the id that the client knows
        self._serial = itertools.count()
        self._mailbox: Mailbox | None = None
        self._encoder = ThreadPoolExecutor(1, "gaugeblock-encode")  # one: a tokenizer need not be thread-safe
        self.token_text = lru_cache(maxsize=65536)(self._token_text)

    @property
    def mailbox(self) -> Mailbox:
        """The mailbox of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = Mailbox(loop)
        return self._mailbox

    def start(self, plan: Plan) -> Generation:
        """Submit every sequence of ``plan``.

        Raises:
            ApiError: 400, an id is in use or the request exceeds all capacity; 503 with Retry-After, the queue is full.
            RequestError: the engine refuses a sequence; none of the others runs on.
        """
        self._admit(len(plan.sequences))
        answers = [sequence.answer(next(self._serial)) for sequence in plan.sequences]
        for answer in answers:
            if answer.shown_id in self._live or plan.group in self._generations:
                raise bad("rid", f"rid {answer.shown_id!r} belongs to a request that is still running")
        generation = Generation(self.engine, self.mailbox, answers, lambda _: self._forget(plan.group, answers))
        self._generations[plan.group] = generation
        self._live.update({answer.shown_id: answer for answer in answers})
        return generation

    def _admit(self, wanted: int) -> None:
        if not self.engine.healthy:
            raise overloaded("the engine is not running")
        if wanted > self.capacity:
            raise bad(None, f"{wanted} sequences in one request exceed what may run and wait: {self.capacity}")
        if len(self._live) + wanted > self.capacity:
            raise overloaded(
                f"the queue is full: {len(self._live)} of {self.capacity} sequences run or wait; try later"
            )

    def _forget(self, group: str, answers: list[Answer]) -> None:
        for answer in answers:
            if self._live.pop(answer.shown_id, None) is not None:
                self.metrics.observe(answer)
        self._generations.pop(group, None)

    def abort(self, shown_id: str) -> None:
        """End the sequence, or all sequences of the request, that the client knows by this id; unknown is no error."""
        generation = self._generations.get(shown_id)
        single = self._live.get(shown_id)
        for answer in generation.answers if generation is not None else [single] if single is not None else []:
            self.engine.abort(answer.rid)

    async def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``; a long one is encoded on a thread so that streams go on meanwhile."""
        if len(text) < LONG_TEXT:
            return self.tokenizer.encode(text, add_special_tokens)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._encoder, self.tokenizer.encode, text, add_special_tokens)

    def _token_text(self, token: int) -> str:
        return self.tokenizer.decode([token], skip_special_tokens=False)

    def check_model(self, fields: Fields) -> None:
        """Refuse a model that is not served; an absent name means the served one.

        Raises:
            ApiError: 404.
        """
        name = fields.maybe_text("model")
        if name is not None and name != self.model:
            raise ApiError(404, f"model {name!r} does not exist; served here: {self.model!r}", param="model")

    async def shut_down(self) -> None:
        """End what runs in the background."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self._encoder.shutdown(wait=False, cancel_futures=True)


def front_of(request: Request) -> Front:
    """The front of the application that ``request`` came to."""
    return cast(Front, request.app.state.front)


def new_id(prefix: str = "") -> str:
    """An id that no other request has."""
    return prefix + uuid.uuid4().hex
