"""The listening socket, the signals, and a drain that lets streams finish."""

from __future__ import annotations

import asyncio
import logging
import signal

from gaugeblock.reference.router.app import RouterApp
from gaugeblock.reference.router.config import RouterConfig
from gaugeblock.reference.router.front import ClientConnection, Limits
from gaugeblock.reference.router.rulebook import RuleBook

log = logging.getLogger(__name__)


class RouterServer:
    """A router that listens. ``async with`` starts it and, at the end, drains and stops it."""

    def __init__(self, config: RouterConfig, host: str, port: int) -> None:
        self.app = RouterApp(config)
        self._config, self._host, self._port = config, host, port
        self._connections: set[ClientConnection] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._listener is not None
        return int(self._listener.sockets[0].getsockname()[1])

    async def __aenter__(self) -> RouterServer:
        config = self._config
        limits = Limits(
            config.max_head_bytes, config.max_body_bytes, config.request_read_timeout, config.keepalive_timeout
        )
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: ClientConnection(self.app.handle, limits, self._connections), self._host, self._port, backlog=2048
        )
        self.app.registry.start()
        self._sweeper = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()

    async def drain(self) -> None:
        """Stop listening, let running requests finish within ``drain_timeout``, then end what is left."""
        assert self._listener is not None
        assert self._sweeper is not None
        self._listener.close()
        self._sweeper.cancel()
        self.app.proxy.shadows.cancel()  # nobody waits for them
        for connection in list(self._connections):
            connection.close_when_idle()
        running = [c.task for c in self._connections if c.task is not None]
        if running:
            _, late = await asyncio.wait(running, timeout=self._config.drain_timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._part()
        await self.app.registry.stop()

    async def _part(self) -> None:
        """Let last bytes reach their clients, but not for longer than a second."""
        connections = list(self._connections)
        if connections:
            await asyncio.wait([connection.lost for connection in connections], timeout=1.0)
        for connection in list(self._connections):
            connection.hang_up()
        await asyncio.sleep(0)

    async def _sweep(self) -> None:
        """Hang up on clients that keep a connection without using it, or never finish their request."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now = loop.time()
            for connection in list(self._connections):
                if connection.deadline is not None and now > connection.deadline:
                    connection.hang_up()


async def _run(config: RouterConfig, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with RouterServer(config, host, port) as server:
        loop.add_signal_handler(signal.SIGHUP, _reload, server.app.rules)
        workers = f"{len(config.specs)} workers"
        print(f"gaugeblock router ready on http://{host}:{server.port} policy {config.policy}, {workers}", flush=True)
        await stop.wait()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # a second signal ends the drain at once


def _reload(book: RuleBook) -> None:
    """Answer a SIGHUP; what is wrong with the file goes to the log, and the rules in force stay."""
    try:
        book.reload(b"")
    except ValueError as error:
        log.error("%s; the rules in force are unchanged", error)
    else:
        log.warning("rules reloaded: %s", book.describe())


def serve(config: RouterConfig, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, then drain: streams finish within ``drain_timeout``, an idle router exits at once.

    SIGHUP reloads the rules from ``config_file``.

    Raises:
        OSError: the address cannot be bound.
    """
    asyncio.run(_run(config, host, port))
