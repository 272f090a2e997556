"""Bytes in, bytes out."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

ODD = b'{ "model" :"m","id":123456789012345678901234567890,  "unknown":[1,2,],\t"sampling_params":{"x":0.10}}\n'
BODIES = [
    ODD,
    b"",
    b"not json",
    b'\xef\xbb\xbf{"text":"bom"}',
    b"\x00\xff\xfe",
    b'{"text": "\\ud800"}',
    Random(1).randbytes(300_000),
]


def fields(head: bytes) -> list[bytes]:
    return head.rstrip(b"\r\n").split(b"\r\n")[1:]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("policy", ["cache_aware", "round_robin"])
def test_request_and_response_bodies_pass_unchanged(tools: Any, body: bytes, policy: str) -> None:
    async def main() -> None:
        worker = tools.Worker()
        async with tools.lab([worker], policy=policy) as lab:
            response = await lab.post("/generate", body)
            assert worker.calls[0].body == body
            assert response.body == (body or b"{}")

    tools.run(main())


def test_headers_pass_in_order_and_case_both_ways(tools: Any) -> None:
    sent = [
        "X-ODD-Case: A  b",
        "x-dup: 1",
        "x-dup: 2",
        "Authorization: Bearer k",
        "Accept-Encoding: br",
        "traceparent: 0",
        "Content-Type: weird/x",
        "X-Empty:",
    ]
    back = [
        b"X-Request-ID: 7",
        b"x-dup: 1",
        b"X-DUP: 2",
        b"Content-Type: application/JSON; charset=UTF-8",
        b'ETag: "x"',
        b"Set-Cookie: a=b",
    ]

    async def answer(call: Any) -> None:
        call.send(
            b"HTTP/1.1 299 Rather Good\r\nConnection: keep-alive\r\n"
            + b"\r\n".join(back)
            + b"\r\nContent-Length: 2\r\n\r\n{}"
        )

    async def main() -> None:
        worker = tools.Worker(answer)
        async with tools.lab([worker]) as lab:
            hop = "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\n"
            response = await lab.post("/generate?a=%20b&&c", b"{}", hop + "".join(f"{line}\r\n" for line in sent))
            head = worker.calls[0].head
            assert head.startswith(b"POST /generate?a=%20b&&c HTTP/1.1\r\n")
            host = b"Host: " + worker.url.removeprefix("http://").encode()
            expected = [line.replace("A  b", "A  b").encode() for line in sent]
            got = [line.rstrip(b" ") for line in fields(head)]
            assert got == [host, *expected, b"Content-Length: 2"]
            assert response.head.startswith(b"HTTP/1.1 299 Rather Good\r\n")
            theirs = [line for line in fields(response.head) if not line.startswith(b"x-gaugeblock-")]
            assert theirs == [*back, b"Content-Length: 2"]

    tools.run(main())


def test_the_receipt_is_whole(tools: Any) -> None:
    async def main() -> None:
        workers = [tools.Worker(), tools.Worker()]
        async with tools.lab(workers) as lab:
            body = b'{"text": "%s"}' % (b"abcdefgh" * 50)
            first, second = [await lab.post("/generate", body) for _ in range(2)]
            names = ("worker", "policy", "reason", "attempts", "predicted-prefix")
            receipt = [first.header(f"x-gaugeblock-{name}") for name in names]
            assert receipt == [lab.worker(first).url, "cache_aware", "miss", "1", "0"]
            receipt = [second.header(f"x-gaugeblock-{name}") for name in names]
            assert receipt == [lab.worker(first).url, "cache_aware", "prefix", "1", "400"]

    tools.run(main())


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_other_methods_under_v1_pass(tools: Any, method: str) -> None:
    async def answer(call: Any) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + (b"" if method == "HEAD" else b"hello"))

    async def main() -> None:
        worker = tools.Worker(answer)
        async with tools.lab([worker]) as lab:
            client = await lab.client()
            client.send(f"{method} /v1/responses/abc HTTP/1.1\r\nHost: r\r\n\r\n".encode())
            head = await client.read_head()
            assert b"Content-Length: 5" in head
            if method != "HEAD":
                assert await client.reader.readexactly(5) == b"hello"
            client.send(b"GET /liveness HTTP/1.1\r\nHost: r\r\n\r\n")
            assert (await client.response()).status == 200
            client.close()

    tools.run(main())


@pytest.mark.parametrize(
    "wire", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"]
)
def test_answers_without_a_body(tools: Any, wire: bytes) -> None:
    async def answer(call: Any) -> None:
        call.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + wire)

    async def main() -> None:
        worker = tools.Worker(answer)
        async with tools.lab([worker]) as lab:
            client = await lab.client()
            for _ in range(2):
                client.post("/generate", b"{}")
                assert (await client.read_head()).startswith(wire[:12])
            assert len(worker.calls) == 2
            client.close()

    tools.run(main())


def test_a_body_that_runs_until_the_close_passes(tools: Any) -> None:
    async def answer(call: Any) -> None:
        call.send(b"HTTP/1.0 200 OK\r\n\r\n" + b"y" * 100_000)
        await call.flushed_reset()

    async def main() -> None:
        worker = tools.Worker(answer)
        async with tools.lab([worker]) as lab:
            response = await lab.post("/generate", b"{}")
            assert (response.whole, response.body) == (True, b"y" * 100_000)
            assert lab.state(worker).outcomes["success"] == 1

    tools.run(main())
