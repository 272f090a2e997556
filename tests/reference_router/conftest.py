"""A laboratory on loopback: scripted workers, a router in the same loop, a client that sees raw bytes."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.server import RouterServer

LIMIT = 10.0  # seconds for any one test
Script = Callable[["Call"], Awaitable[None]]
_OWN = ("/health", "/v1/models", "/get_model_info", "/get_server_info", "/server_info")


async def until(true: Callable[[], bool], what: str, within: float = 5.0) -> None:
    """Wait for a state that has no event of its own."""
    deadline = asyncio.get_running_loop().time() + within
    while not true():
        assert asyncio.get_running_loop().time() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.002)


@dataclass
class Call:
    """One request as a worker got it, and the means to answer it."""

    worker: Worker
    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def answer(self, body: bytes = b"{}", status: str = "200 OK", kind: str = "application/json") -> None:
        self.send(f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    def begin_stream(self) -> None:
        self.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    def piece(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a close sends RST
        self.writer.transport.abort()

    def close(self) -> None:
        """Close in good order without a word."""
        self.writer.close()

    async def flushed_reset(self) -> None:
        """Close after what was written has gone out."""
        await self.writer.drain()
        self.writer.close()

    async def client_left(self) -> None:
        """Return once the router has closed this connection."""
        try:
            while await self.reader.read(4096):
                pass
        except ConnectionError:
            return


async def echo(call: Call) -> None:
    """Answer with the body that came."""
    call.answer(call.body or b"{}")


@dataclass(eq=False)
class Worker:
    """A worker that answers health checks by itself and everything else by ``script``."""

    script: Script = echo
    models: tuple[str, ...] = ()
    healthy: bool = True
    calls: list[Call] = field(default_factory=list)
    url: str = ""
    answer_admin: bool = True
    spec: dict[str, Any] = field(default_factory=dict)  # declared beside the URL
    info: bytes = b""  # what /get_server_info says
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower()[:15] == b"content-length:"), 0
                )
                call = Call(self, head, await reader.readexactly(length), reader, writer)
                if call.target in _OWN and b"x-test" not in head:
                    self._own(call)
                else:
                    self.calls.append(call)
                    await self.script(call)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def _own(self, call: Call) -> None:
        if call.target == "/health":
            call.answer(status="200 OK" if self.healthy else "503 Service Unavailable")
        elif call.target == "/v1/models" and self.models:
            entries = ",".join(f'{{"id":"{name}","object":"model"}}' for name in self.models)
            call.answer(f'{{"object":"list","data":[{entries}]}}'.encode())
        elif call.target == "/get_server_info" and self.info:
            call.answer(self.info)
        else:
            call.answer(status="404 Not Found")


@dataclass
class Response:
    """A response as the client got it: raw head, decoded body, and whether it ended as it should."""

    status: int
    head: bytes
    body: bytes
    whole: bool = True

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.decode("latin-1").partition(": ")
            if key.lower() == name:
                return value
        return None


class Client:
    """One connection to the router."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def post(self, path: str, body: bytes = b"{}", headers: str = "") -> None:
        self.send(f"POST {path} HTTP/1.1\r\nHost: r\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)

    async def read_head(self) -> bytes:
        self.head = (await self.reader.readuntil(b"\r\n\r\n"))[:-4]
        return self.head

    async def read_piece(self) -> bytes:
        """One chunk; empty at the end of the body."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def response(self) -> Response:
        head = await self.read_head()
        got = Response(int(head.split(b" ", 2)[1]), head, b"")
        length = got.header("content-length")
        try:
            if got.header("transfer-encoding"):
                while piece := await self.read_piece():
                    got.body += piece
            elif length is not None:
                got.body = await self.reader.readexactly(int(length))
            else:
                got.body = await self.reader.read()
        except asyncio.IncompleteReadError as error:
            got.body += error.partial
            got.whole = False
        return got

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Lab:
    """A running router with its workers."""

    server: RouterServer
    workers: list[Worker]
    clients: list[Client] = field(default_factory=list)

    @property
    def in_flight(self) -> int:
        return sum(worker.in_flight for worker in self.server.app.registry.workers.values())

    def state(self, worker: Worker) -> Any:
        return self.server.app.registry.workers[worker.url]

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.server.port))
        self.clients.append(client)
        return client

    async def post(self, path: str, body: bytes = b"{}", headers: str = "") -> Response:
        client = await self.client()
        client.post(path, body, headers)
        try:
            return await client.response()
        finally:
            client.close()

    async def ask(self, method: str, path: str, body: bytes = b"") -> Response:
        client = await self.client()
        client.send(f"{method} {path} HTTP/1.1\r\nHost: r\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            return await client.response()
        finally:
            client.close()

    def worker(self, response: Response) -> Worker:
        """The worker named in the receipt."""
        return next(worker for worker in self.workers if worker.url == response.header("x-gaugeblock-worker"))


@asynccontextmanager
async def open_lab(workers: list[Worker], *, ready: bool = True, **config: Any) -> AsyncIterator[Lab]:
    for worker in workers:
        await worker.start()
    defaults: dict[str, Any] = {"health_interval": 30.0, "health_join_interval": 0.02, "drain_timeout": 0.0, "seed": 1}
    declared: Any = [{"url": worker.url, **worker.spec} for worker in workers]
    try:
        async with RouterServer(RouterConfig(workers=declared, **{**defaults, **config}), "127.0.0.1", 0) as server:
            lab = Lab(server, workers)
            if ready:
                registered = server.app.registry.workers.values()
                await until(lambda: all(worker.available() for worker in registered), "all workers available")
            try:
                yield lab
            finally:
                for client in lab.clients:
                    client.close()
            await until(lambda: lab.in_flight == 0, "in-flight back to 0")
    finally:
        for worker in workers:
            await worker.stop()


class Tools:
    """What tests use of this file; test modules cannot import a conftest."""

    Worker, Call, lab, until, echo = Worker, Call, staticmethod(open_lab), staticmethod(until), staticmethod(echo)

    @staticmethod
    def run(main: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(LIMIT):
                await main

        asyncio.run(bounded())

    @staticmethod
    def script(*steps: Script) -> Script:
        """Play one step a call, the last one for ever."""
        left = list(steps)

        async def play(call: Call) -> None:
            await (left.pop(0) if len(left) > 1 else left[0])(call)

        return play


@pytest.fixture
def tools() -> type[Tools]:
    return Tools
