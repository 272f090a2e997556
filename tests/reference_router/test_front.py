"""Clients of every kind: chunked, pipelined, old, slow, broken, hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /generate HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /generate HTTP/1.1\r\nContent-Length: -2\r\n\r\n", 400),
        (b"POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /generate HTTP/1.1\r\nContent-Length: 99999\r\n\r\n", 413),
        (b"POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n" + b"x" * 8192, 413),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 5000, 431),
    ],
    ids=["words", "two lengths", "negative", "bad chunk", "large", "large in chunks", "large head"],
)
def test_what_is_no_request_gets_a_4xx_in_json_and_a_close(tools: Any, wire: bytes, status: int) -> None:
    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker], max_body_bytes=4096, max_head_bytes=4096) as lab:
            client = await lab.client()
            client.send(wire)
            response = await client.response()
            assert response.status == status
            assert json.loads(response.body)["error"]["message"]
            assert await client.reader.read() == b""
            assert not worker.calls
            assert (await lab.post("/generate", b"{}")).status == 200

    tools.run(main())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/generate", 405), ("PUT", "/workers", 405), ("POST", "/readiness", 405)],
)
def test_unknown_paths_and_methods(tools: Any, method: str, path: str, status: int) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            response = await lab.ask(method, path)
            assert response.status == status
            assert bool(response.header("allow")) is (status == 405)

    tools.run(main())


def test_a_chunked_request_arrives_with_its_length(tools: Any) -> None:
    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker]) as lab:
            client = await lab.client()
            client.send(
                b'POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n'
            )
            assert (await client.response()).body == b'{"a":1}'
            assert b"Content-Length: 7\r\n" in worker.calls[0].head
            assert b"chunked" not in worker.calls[0].head
            client.close()

    tools.run(main())


def test_pipelined_requests_are_answered_in_order(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            client = await lab.client()
            for i in range(5):
                client.post("/generate", b'{"n":%d}' % i)
            assert [(await client.response()).body for _ in range(5)] == [b'{"n":%d}' % i for i in range(5)]
            client.close()

    tools.run(main())


def test_a_request_in_single_bytes(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            client = await lab.client()
            for byte in b"\r\nPOST /generate HTTP/1.1\r\nContent-Length: 4\r\n\r\n{ } ":
                client.send(bytes([byte]))
                await client.writer.drain()
            assert (await client.response()).body == b"{ } "
            client.close()

    tools.run(main())


def test_expect_100_is_answered_before_the_body_and_not_forwarded(tools: Any) -> None:
    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker]) as lab:
            client = await lab.client()
            client.send(b"POST /generate HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
            assert await client.read_head() == b"HTTP/1.1 100 Continue"
            client.send(b"{}")
            assert (await client.response()).status == 200
            assert b"expect" not in worker.calls[0].head.lower()
            client.close()

    tools.run(main())


def test_an_http10_client_gets_no_chunks(tools: Any) -> None:
    async def stream(call: Any) -> None:
        call.begin_stream()
        call.piece(b"data: [DONE]\n\n")
        call.end_stream()

    async def main() -> None:
        async with tools.lab([tools.Worker(stream)]) as lab:
            client = await lab.client()
            client.send(b"POST /generate HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
            head = await client.read_head()
            assert b"chunked" not in head
            assert await client.reader.read() == b"data: [DONE]\n\n"

    tools.run(main())


def test_an_unfinished_request_is_given_up(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()], request_read_timeout=0.05) as lab:
            client = await lab.client()
            client.send(b"POST /generate HTTP/1.1\r\nContent-Le")
            assert await client.reader.read() == b""

    tools.run(main())


def test_an_absolute_target_is_taken_by_its_path(tools: Any) -> None:
    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker]) as lab:
            assert (await lab.post("http://router.example/generate?x=1", b"{}")).status == 200
            assert worker.calls[0].target == "/generate?x=1"

    tools.run(main())


def test_a_body_in_chunks_of_one_byte(tools: Any) -> None:
    async def main() -> None:
        async with tools.lab([tools.Worker()]) as lab:
            client = await lab.client()
            body = bytes(range(256)) * 20
            chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
            client.send(b"POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
            assert (await client.response()).body == body

    tools.run(main())


def test_a_client_that_still_sends_gets_its_refusal(tools: Any) -> None:
    """Not a reset: closing on unread bytes would overtake the answer."""

    async def main() -> None:
        async with tools.lab([tools.Worker()], max_body_bytes=4096) as lab:
            client = await lab.client()
            body = b"x" * (8 << 20)
            client.post("/v1/messages", body)
            await client.writer.drain()
            response = await client.response()
            assert response.status == 413
            assert json.loads(response.body)["error"]["type"] == "request_too_large"

    tools.run(main())
