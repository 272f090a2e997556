"""What a router costs: latency added, requests and events a second, memory. One core for it, one for everything else.

    python benchmarks/router_speed.py [--router reference --router smg …] [--rounds 5] [--seconds 2] [--out FILE]

The router has the first core; three workers that answer at once (one process) and the client have the second. Both are
bare epoll loops over bytes made beforehand, so that a request costs them little beside the router. Each round measures
the workers directly and then through each router, so that a ratio compares neighbours in time:

* ``added p50``: a chat at a time over one connection, through the router less direct, in microseconds;
* ``requests/s``: 32 connections, each sending its next chat as soon as it has an answer;
* ``p95 added at R/s``: chats that fall due R times a second whatever became of the earlier ones, latency from the due
  moment on;
* ``events/s``: 32 streams at a time of 400 events, each event a write of its own;
* ``memory``: resident bytes after 50,000 chats with unique prompts of 4 KB, less those after the first hundred.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gaugeblock.fixtures.launch import Server, free_port, start_server
from gaugeblock.fixtures.targets.router_launch import LAUNCHERS, LabConfig, launcher
from gaugeblock.fixtures.workers import shapes

WORKERS = 3
CONNECTIONS = 32
RATE = 1000.0
EVENTS = 400
PROMPTS = 50_000
LIMIT = 30.0  # seconds without any progress
PLAIN_BODY = shapes.plain("/v1/chat/completions", {}, "r", 0)
EVENT = shapes.frames("/v1/chat/completions", {"stream": True}, "r", 0)[0]


# -- the workers' process ---------------------------------------------------------------------------------------------


def whole(body: bytes) -> bytes:
    """Return a whole JSON answer."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def chunked(piece: bytes) -> bytes:
    """Return a piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


INFO = {
    b"/v1/models": whole(json.dumps(shapes.models()).encode()),
    b"/get_model_info": whole(json.dumps(shapes.model_info()).encode()),
    b"/model_info": whole(json.dumps(shapes.model_info()).encode()),
    b"/get_server_info": whole(json.dumps(shapes.server_info()).encode()),
    b"/server_info": whole(json.dumps(shapes.server_info()).encode()),
    b"/v1/chat/completions": whole(PLAIN_BODY),
}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM_EVENT = chunked(EVENT)
STREAM_END = chunked(shapes.DONE) + b"0\r\n\r\n"


class WorkerSide:
    """One connection at a worker: whole requests in, made answers out, a stream an event at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer, self.left = sock, b"", 0

    def readable(self) -> bool:
        """Answer what has come; False once the peer has left."""
        data = self.sock.recv(1 << 18)
        if not data:
            return False
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                break
            request, self.buffer = self.buffer[: end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(request, end)
        return True

    def answer(self, request: bytes, end: int) -> None:
        """Answer one request."""
        path = request.split(b" ", 2)[1]
        at = request.find(b'"stream"', end)
        if at >= 0 and request[at + 8 :].lstrip(b": ").startswith(b"true"):
            self.sock.sendall(STREAM_HEAD)
            self.left = EVENTS
        else:
            self.sock.sendall(INFO.get(path, whole(b"{}")))

    def step(self) -> bool:
        """Send the next event of a stream; False once it is over."""
        self.sock.sendall(STREAM_EVENT)
        self.left -= 1
        if not self.left:
            self.sock.sendall(STREAM_END)
        return self.left > 0


def work(ports: list[int], core: int) -> None:
    """Serve all workers until killed."""
    pin(core)
    epoll = select.epoll()
    listeners: dict[int, socket.socket] = {}
    sides: dict[int, WorkerSide] = {}
    for port in ports:
        sock = socket.create_server(("127.0.0.1", port), backlog=1024)
        epoll.register(sock, select.EPOLLIN)
        listeners[sock.fileno()] = sock
    streaming: set[int] = set()
    while True:
        for fd, _ in epoll.poll(0 if streaming else -1):
            if fd in listeners:
                sock, _ = listeners[fd].accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sides[sock.fileno()] = WorkerSide(sock)
                epoll.register(sock, select.EPOLLIN)
                continue
            try:
                alive = sides[fd].readable()
            except (OSError, ValueError, IndexError):  # somebody tries another protocol
                alive = False
            if not alive:
                epoll.unregister(fd)
                sides.pop(fd).sock.close()
                streaming.discard(fd)
            elif sides[fd].left:
                streaming.add(fd)
        for fd in list(streaming):
            try:
                more = sides[fd].step()
            except OSError:
                more = False
            if not more:
                streaming.discard(fd)


# -- the client -------------------------------------------------------------------------------------------------------


def request(prompt: str, *, stream: bool = False) -> bytes:
    """Return the bytes of a chat."""
    data = {"model": shapes.MODEL, "messages": [{"role": "user", "content": prompt}]}
    body = json.dumps(data | ({"stream": True} if stream else {})).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class ClientSide:
    """One connection of the client, one request at a time."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.begin = 0.0
        self.buffer = b""
        self.events = 0

    def send(self, message: bytes, begin: float) -> None:
        """Send a request that fell due at ``begin``."""
        self.begin, self.buffer, self.events = begin, b"", 0
        self.sock.sendall(message)

    def readable(self) -> bool:
        """Take what has come; returns whether the answer is whole."""
        data = self.sock.recv(1 << 18)
        if not data:
            raise SystemExit("the router closed a connection in the middle of an answer")
        self.buffer += data
        if self.events >= 0 and b"\r\n\r\n" in self.buffer and self.buffer[9:12] != b"200":
            raise SystemExit(f"the router answered {self.buffer[:300]!r}")
        end = self.buffer.find(b"\r\n\r\n")
        at = self.buffer[: max(end, 0)].lower().find(b"content-length:")
        if at < 0:
            return False
        length = int(self.buffer[at + 15 :].split(b"\r\n", 1)[0])
        return len(self.buffer) >= end + 4 + length

    def stream_readable(self) -> bool:
        """Take what has come of a stream; returns whether it is whole."""
        data = self.buffer + self.sock.recv(1 << 18)
        if data == self.buffer:
            raise SystemExit("the router closed a stream in the middle")
        self.events += data.count(b"\n\n")
        self.buffer = data[-1:] if data.endswith(b"\n") and not data.endswith(b"\n\n") else b""
        return data.endswith(b"0\r\n\r\n")


def one_at_a_time(port: int, seconds: float) -> list[float]:
    """Return the latencies in seconds of chats over one connection, one at a time."""
    side, message, found = ClientSide(port), request("ping"), []
    end = time.perf_counter() + seconds
    while (now := time.perf_counter()) < end:
        side.send(message, now)
        while not side.readable():
            pass
        found.append(time.perf_counter() - now)
    side.sock.close()
    return found


def closed_loop(port: int, seconds: float) -> float:
    """Return the requests a second that all connections get answered, each sending its next one at once."""
    message, sides, epoll = request("ping"), {}, select.epoll()
    for _ in range(CONNECTIONS):
        side = ClientSide(port)
        sides[side.sock.fileno()] = side
        epoll.register(side.sock, select.EPOLLIN)
        side.send(message, 0.0)
    done, begin = 0, time.perf_counter()
    end = begin + seconds
    while (now := time.perf_counter()) < end:
        for fd, _ in ready(epoll):
            if sides[fd].readable():
                done += 1
                sides[fd].send(message, now)
    close(sides)
    return done / (now - begin)


def open_loop(port: int, seconds: float, rate: float) -> list[float]:
    """Return the latencies in seconds of chats that fall due ``rate`` times a second, at random moments."""
    message, sides, epoll = request("ping"), {}, select.epoll()
    for _ in range(2 * CONNECTIONS):
        side = ClientSide(port)
        sides[side.sock.fileno()] = side
        epoll.register(side.sock, select.EPOLLIN)
    idle, found, rng = list(sides.values()), [], random.Random(0)
    due, waiting, running = time.perf_counter(), [], 0
    end = due + seconds
    while due < end or running or waiting:
        now = time.perf_counter()
        while due < end and due <= now:
            waiting.append(due)
            due += rng.expovariate(rate)
        while waiting and idle:
            idle.pop().send(message, waiting.pop(0))
            running += 1
        pause = max(0.0, min(due, end) - time.perf_counter()) if due < end else LIMIT
        for fd, _ in epoll.poll(pause):
            if sides[fd].readable():
                found.append(time.perf_counter() - sides[fd].begin)
                idle.append(sides[fd])
                running -= 1
    close(sides)
    return found


def streams(port: int, seconds: float) -> float:
    """Return the events a second of all streams together."""
    message, sides, epoll = request("ping", stream=True), {}, select.epoll()
    for _ in range(CONNECTIONS):
        side = ClientSide(port)
        sides[side.sock.fileno()] = side
        epoll.register(side.sock, select.EPOLLIN)
        side.send(message, 0.0)
    events, begin, running = 0, time.perf_counter(), len(sides)
    end = begin + seconds
    while running:
        for fd, _ in ready(epoll):
            side = sides[fd]
            if side.stream_readable():
                if side.events < EVENTS + 1:
                    raise SystemExit(f"a stream of {EVENTS} events came with {side.events - 1}")
                events += side.events - 1
                if time.perf_counter() < end:
                    side.send(message, 0.0)
                else:
                    running -= 1
    took = time.perf_counter() - begin
    close(sides)
    return events / took


def unique_prompts(port: int, count: int) -> None:
    """Send chats with unique prompts of 4 KB over all connections."""
    sides, epoll, rng = {}, select.epoll(), random.Random(count)
    left = count

    def following() -> bytes:
        return request(rng.randbytes(2048).hex())

    for _ in range(min(CONNECTIONS, count)):
        side = ClientSide(port)
        sides[side.sock.fileno()] = side
        epoll.register(side.sock, select.EPOLLIN)
        side.send(following(), 0.0)
        left -= 1
    running = len(sides)
    while running:
        for fd, _ in ready(epoll):
            if sides[fd].readable():
                if left > 0:
                    left -= 1
                    sides[fd].send(following(), 0.0)
                else:
                    running -= 1
    close(sides)


def ready(epoll: select.epoll) -> list[tuple[int, int]]:
    """Wait for answers; a router that gives none for long ends the run."""
    found = epoll.poll(LIMIT)
    if not found:
        raise SystemExit(f"no answer within {LIMIT:g} s")
    return found


def close(sides: dict[int, ClientSide]) -> None:
    """Close all connections."""
    for side in sides.values():
        side.sock.close()


# -- the run ----------------------------------------------------------------------------------------------------------


def pin(core: int) -> None:
    """Keep this process on one core."""
    os.sched_setaffinity(0, {core})


def resident(pid: int) -> float:
    """Return the resident MB of a process and its children."""
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if int(folder.name) == pid or int(fields[1]) == pid:
                total += int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        except (OSError, ValueError):
            continue  # it has ended meanwhile
    return total


@contextmanager
def router(name: str, policy: str, urls: list[str], cores: tuple[int, int]) -> Iterator[Server]:
    """Start a router on its core and wait until it serves."""
    chosen, port = launcher(name), free_port()
    pin(cores[0])  # what is started now inherits it
    config = LabConfig(policy=policy, workers=len(urls))
    try:
        server = start_server(
            f"router-{name}", chosen.build(config, urls, port), port=port, ready_path=serves, env=chosen.environ,
            timeout=LIMIT, remedy=chosen.remedy,
        )  # fmt: skip
    finally:
        pin(cores[1])
    try:
        yield server
    finally:
        server.stop(grace=1.0)


def serves(url: str) -> bool:
    """Whether a chat is answered."""
    try:
        side = ClientSide(int(url.rsplit(":", 1)[1]))
        side.send(request("ping"), 0.0)
        while not side.readable():
            pass
    except (OSError, SystemExit):
        return False
    side.sock.close()
    return True


def quantile(values: list[float], share: float) -> float:
    """Return a quantile of at least a few values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def spread(values: list[float], form: Callable[[float], str]) -> str:
    """Return median and range."""
    if len(values) == 1:
        return form(values[0])
    return f"{form(statistics.median(values))} ({form(min(values))}–{form(max(values))})"


def measure(names: list[str], policy: str, rounds: int, seconds: float, rate: float, memory: int) -> list[str]:
    """Return the table's lines."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("this needs two cores: one for the router, one for workers and client")
    pair = (cores[0], cores[1])
    ports = [free_port() for _ in range(WORKERS)]
    child = multiprocessing.get_context("spawn").Process(target=work, args=(ports, pair[1]), daemon=True)
    child.start()
    pin(pair[1])
    while not serves(f"http://127.0.0.1:{ports[0]}"):
        time.sleep(0.05)  # a port that is not there yet can only be asked again
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ["direct", *names]}
    for number in range(rounds):
        base = one_round(ports[0], seconds, rate)
        note(found["direct"], base)
        for name in names:
            with router(name, policy, [f"http://127.0.0.1:{port}" for port in ports], pair) as server:
                port = int(server.url.rsplit(":", 1)[1])
                now = one_round(port, seconds, rate)
                now["added p50"] = now["p50"] - base["p50"]
                now["added p95"] = now["p95 at rate"] - base["p95 at rate"]
                if number == 0 and memory:
                    unique_prompts(port, 100)
                    before = resident(server.process.pid)
                    unique_prompts(port, memory)
                    now["memory"] = resident(server.process.pid) - before
                note(found[name], now)
                print(f"round {number + 1} {name}: {now}", file=sys.stderr, flush=True)
    child.terminate()
    return table(found, rate)


def one_round(port: int, seconds: float, rate: float) -> dict[str, float]:
    """Measure what is behind one port."""
    one_at_a_time(port, 0.2)
    rated = open_loop(port, seconds, rate)
    return {
        "p50": statistics.median(one_at_a_time(port, seconds)),
        "requests": closed_loop(port, seconds),
        "p95 at rate": quantile(rated, 0.95),
        "events": streams(port, seconds),
    }


def note(into: dict[str, list[float]], values: dict[str, float]) -> None:
    """Keep a round's values."""
    for name, value in values.items():
        into.setdefault(name, []).append(value)


def table(found: dict[str, dict[str, list[float]]], rate: float) -> list[str]:
    """Return the lines, medians and ranges."""
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        ("p50", "p50 µs", lambda v: f"{v * 1e6:.0f}"),
        ("added p50", "added p50 µs", lambda v: f"{v * 1e6:.0f}"),
        ("requests", "requests/s", lambda v: f"{v:.0f}"),
        ("p95 at rate", f"p95 at {rate:.0f}/s ms", lambda v: f"{v * 1e3:.2f}"),
        ("added p95", "added ms", lambda v: f"{v * 1e3:.2f}"),
        ("events", "events/s", lambda v: f"{v:.0f}"),
        ("memory", "memory MB", lambda v: f"{v:+.0f}"),
    ]
    rows = [["", *(title for _, title, _ in columns)]]
    for name, values in found.items():
        rows.append([name, *(spread(values[key], form) if key in values else "-" for key, _, form in columns)])
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--router", action="append", choices=sorted(LAUNCHERS), help="default: reference")
    parser.add_argument("--policy", default="cache_aware")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--memory", type=int, default=PROMPTS, help="unique prompts, 0 for none")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = options.router or ["reference"]
    lines = measure(names, options.policy, options.rounds, options.seconds, options.rate, options.memory)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
