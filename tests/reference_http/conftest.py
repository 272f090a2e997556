"""A deterministic engine without a model, behind the real application and behind a real server."""

from __future__ import annotations

import codecs
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.testclient import TestClient

from gaugeblock.reference.engine.http.server import Server, build_app, listening_socket
from gaugeblock.reference.engine.types import (
    EngineConfig,
    EngineStats,
    EventSink,
    Finish,
    GenerateRequest,
    RequestError,
    TokenEvent,
)

BOS, EOS, VOCAB = 256, 257, 260
WAIT = 10.0


class ByteTokenizer:
    """One token a byte; encoding with special tokens puts BOS in front, as a model folder may ask for."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [BOS, *text.encode()] if add_special_tokens else list(text.encode())

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        names = {} if skip_special_tokens else {BOS: b"<bos>", EOS: b"<eos>"}
        return b"".join(bytes([i]) if i < 256 else names.get(i, b"") for i in ids).decode(errors="replace")

    def apply_chat_template(self, messages: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        if messages[0]["role"] == "tool":
            raise RequestError("a chat cannot start with a tool")
        text = "".join(f"[{m['role']}]{m['content']}\n" for m in messages)
        return text + ("[assistant]" if add_generation_prompt else "")


@dataclass(frozen=True)
class FakeModel:
    max_position_embeddings: int = 64
    vocab_size: int = VOCAB
    architectures: tuple[str, ...] = ("FakeForCausalLM",)
    model_type: str = "fake"


@dataclass
class Running:
    request: GenerateRequest
    sink: EventSink
    made: int = 0
    shown: str = ""
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))


class FakeEngine:
    """Repeats the prompt byte by byte (seeded requests: random letters). ``gate`` cleared holds all tokens back."""

    def __init__(self, model: FakeModel | None = None, **config: Any) -> None:
        self.config = EngineConfig(model_path="/models/echo", **config)
        self.model_config = model or FakeModel()
        self.tokenizer = ByteTokenizer()
        self.healthy = True
        self.gate = threading.Event()
        self.gate.set()
        self.aborted: list[str | None] = []
        self.abort_seen = threading.Event()
        self.submitted: list[GenerateRequest] = []
        self.made = 0
        self._changed = threading.Condition()
        self._commands: deque[Callable[[], None]] = deque()
        self._running: dict[str, Running] = {}
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._post(lambda: None, stopping=True)
        self.gate.set()
        self._thread.join(WAIT)
        assert not self._thread.is_alive()

    def submit(self, request: GenerateRequest, sink: EventSink) -> None:
        request.sampling.validate(self.model_config.vocab_size)
        self.submitted.append(request)
        self._post(lambda: self._running.update({request.rid: Running(request, sink)}))

    def abort(self, rid: str | None) -> None:
        self.aborted.append(rid)
        self.abort_seen.set()
        self._post(lambda: self._end(rid))

    def flush_cache(self) -> bool:
        return not self._running

    def stats(self) -> EngineStats:
        total = self.config.max_total_tokens
        return EngineStats(
            running=len(self._running), total_tokens=total, free_tokens=total, generation_tokens_total=self.made
        )

    def _post(self, command: Callable[[], None], stopping: bool = False) -> None:
        with self._changed:
            self._stopping |= stopping
            self._commands.append(command)
            self._changed.notify_all()

    def _end(self, rid: str | None) -> None:
        for key in [key for key in self._running if rid in (None, key)]:
            self._running.pop(key).sink(TokenEvent(key, None, "", finish=Finish("abort", message="aborted")))

    def _loop(self) -> None:
        while not self._stopping:
            with self._changed:
                idle = not self._commands and (not self._running or not self.gate.is_set())
                if idle:
                    self._changed.wait(0.02 if self._running else 1.0)
                commands, self._commands = self._commands, deque()
            for command in commands:
                command()
            if self.gate.is_set():
                for running in list(self._running.values()):
                    self._step(running)

    def _step(self, running: Running) -> None:
        request, index = running.request, running.made
        if index < request.sampling.max_new_tokens:
            event = self._token(running, self._pick(request, index))
        else:
            event = TokenEvent(request.rid, None, "", finish=Finish("length"))
        if index == 0 and request.return_logprob and request.logprob_start_len >= 0:
            self._prompt_logprobs(event, request)
        if event.finish is not None:
            event.text += running.decoder.decode(b"", True)
            del self._running[request.rid]
        running.sink(event)

    def _pick(self, request: GenerateRequest, index: int) -> int:
        if request.sampling.seed is not None:
            return random.Random(f"{request.sampling.seed} {index}").randrange(97, 123)
        plain = [i for i in request.input_ids if i != BOS]
        return plain[index % len(plain)]

    def _token(self, running: Running, token: int) -> TokenEvent:
        request = running.request
        running.made += 1
        self.made += 1
        text = running.decoder.decode(bytes([token])) if token < 256 else ""
        event = TokenEvent(request.rid, token, text, prompt_tokens=len(request.input_ids), cached_tokens=1)
        if request.return_logprob:
            event.logprob = -0.5 if token != ord("!") else float("-inf")
            event.top_logprobs = [(-0.5 - i, (token + i) % VOCAB) for i in range(request.top_logprobs_num)] or None
        running.shown += text
        stop = next((s for s in request.sampling.stop if s in running.shown), None)
        if token in (EOS, *request.sampling.stop_token_ids) and not request.sampling.ignore_eos:
            event.finish = Finish("stop", token)
        elif stop is not None:
            event.finish = Finish("stop", stop)
        elif running.made >= request.sampling.max_new_tokens:
            event.finish = Finish("length")
        return event

    def _prompt_logprobs(self, event: TokenEvent, request: GenerateRequest) -> None:
        ids = request.input_ids[request.logprob_start_len :]
        event.input_token_logprobs = [(None if i == 0 else -1.0, token) for i, token in enumerate(ids)]
        event.input_top_logprobs = [None if i == 0 else [(-1.0, token)] for i, token in enumerate(ids)]


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def make_client() -> Iterator[Callable[..., TestClient]]:
    """Build a client around an engine of your own; everything ends with the test."""
    engines: list[FakeEngine] = []
    clients: list[TestClient] = []

    def make(model: FakeModel | None = None, app: dict[str, Any] | None = None, **config: Any) -> TestClient:
        engine = FakeEngine(model, **config)
        engine.start()
        engines.append(engine)
        client = TestClient(build_app(engine, **(app or {})), raise_server_exceptions=False)
        client.engine = engine  # type: ignore[attr-defined] # tests reach the engine behind their client
        clients.append(client.__enter__())
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)
    for engine in engines:
        engine.stop()


@pytest.fixture
def client(fake: FakeEngine) -> Iterator[TestClient]:
    """The application in this process; an exception of ours becomes its 500."""
    with TestClient(build_app(fake), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def live(fake: FakeEngine) -> Iterator[str]:
    """The application behind a real server; the base URL."""
    import uvicorn

    with listening_socket("127.0.0.1", 0) as bound:
        settings = uvicorn.Config(build_app(fake), log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        ready = threading.Event()

        class Announced(Server):
            async def startup(self, sockets: Any = None) -> None:
                await super().startup(sockets)
                ready.set()

        server = Announced(settings, fake, "ready")
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        assert ready.wait(WAIT)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join(WAIT)
        assert not thread.is_alive()
