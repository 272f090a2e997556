"""The real process: ready at once, drains on SIGTERM, gone at once when idle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def process(worker: Any, **config: Any) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, float]]:
    """Start a router process; yields it, its port and the seconds until it was ready."""
    port = free_port()
    fields = {"worker_urls": [worker.url], "host": "127.0.0.1", "port": port, **config}
    code = "import json, sys; from gaugeblock.fixtures.serve import main; main(['router', sys.argv[1]])"
    began = time.monotonic()
    router = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, json.dumps(fields), start_new_session=True
    )
    try:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /readiness HTTP/1.1\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                if answer.startswith(b"HTTP/1.1 200"):
                    break
            except ConnectionError:
                pass
            assert router.returncode is None
            await asyncio.sleep(0.01)
        yield router, port, time.monotonic() - began
    finally:
        if router.returncode is None:
            os.killpg(router.pid, signal.SIGKILL)
        await router.wait()


def test_ready_soon_and_gone_at_once_when_idle(tools: Any) -> None:
    async def main() -> None:
        worker = tools.Worker()
        await worker.start()
        async with process(worker) as (router, port, seconds):
            assert seconds < 3.0, f"ready after {seconds:.2f} s"  # under 1 s alone; the test machine is shared
            reader, writer = await asyncio.open_connection("127.0.0.1", port)  # an idle keep-alive connection
            began = time.monotonic()
            router.terminate()
            assert await router.wait() == 0
            assert time.monotonic() - began < 1.5
            assert await reader.read() == b""
            writer.close()
        await worker.stop()

    tools.run(main())


def test_sigterm_lets_streams_finish_and_takes_nothing_new(tools: Any) -> None:
    go = asyncio.Event()

    async def stream(call: Any) -> None:
        call.begin_stream()
        call.piece(b"data: 1\n\n")
        await go.wait()
        call.piece(b"data: [DONE]\n\n")
        call.end_stream()

    async def main() -> None:
        worker = tools.Worker(stream)
        await worker.start()
        async with process(worker) as (router, port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b'POST /generate HTTP/1.1\r\nContent-Length: 16\r\n\r\n{"stream": true}')
            await reader.readuntil(b"data: 1\n\n")
            router.terminate()
            while True:  # the listener closes at once
                try:
                    _, extra = await asyncio.open_connection("127.0.0.1", port)
                    extra.close()
                    await asyncio.sleep(0.01)
                except ConnectionError:
                    break
            assert router.returncode is None
            go.set()
            assert (await reader.read()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert await router.wait() == 0
            writer.close()
        await worker.stop()

    tools.run(main())


def test_a_drain_is_bounded_and_tells_the_streams_it_ends(tools: Any) -> None:
    async def endless(call: Any) -> None:
        call.begin_stream()
        call.piece(b"data: 1\n\n")
        await call.client_left()

    async def main() -> None:
        worker = tools.Worker(endless)
        await worker.start()
        async with process(worker, drain_timeout=0.1) as (router, port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b'POST /generate HTTP/1.1\r\nContent-Length: 16\r\n\r\n{"stream": true}')
            await reader.readuntil(b"data: 1\n\n")
            router.terminate()
            assert b'"code": "router_shutdown"' in await reader.read()
            assert await router.wait() == 0
            writer.close()
        await worker.stop()

    tools.run(main())


def test_sighup_reloads_the_rules_and_a_bad_file_changes_nothing(tools: Any, tmp_path: Path) -> None:
    path = tmp_path / "router.toml"

    def put(rule: str) -> None:
        path.write_text(f'[[rules]]\nname = "{rule}"\n')

    async def rule(port: int) -> str | None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /generate HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        head = (await reader.read()).partition(b"\r\n\r\n")[0].decode()
        writer.close()
        named = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith("x-gaugeblock-rule: ")]
        return named[0] if named else None

    async def main() -> None:
        put("first")
        worker = tools.Worker()
        await worker.start()
        async with process(worker, config=str(path), health_join_interval=0.02) as (router, port, _):
            assert await rule(port) == "first"
            path.write_text("[[rules]]\nname = 5\n")
            router.send_signal(signal.SIGHUP)
            assert await rule(port) == "first"
            put("second")
            router.send_signal(signal.SIGHUP)
            while await rule(port) != "second":  # a signal is handled soon, and nothing tells when
                await asyncio.sleep(0.01)
            assert router.returncode is None
        await worker.stop()

    tools.run(main())
