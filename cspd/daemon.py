"""cspd as a whole: history, keeper, units, gateway, control socket; the nesting is the shutdown order.

Policy lives in the packages; this file only wires them, and does what concerns all of them: reload, and the end.
"""

import logging
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import trio

from cspd import succession
from cspd.config import DaemonConfig, UnitConfig
from cspd.configfile import Loaded, known_profiles, load_all, load_readable, read_unit
from cspd.control.call import Services
from cspd.control.serve import serve_control
from cspd.control.views import agent_json
from cspd.errors import CspError
from cspd.gateway.history import History, open_history
from cspd.gateway.hub import Agent, Hub
from cspd.keeper.client import KeeperClient
from cspd.paths import Paths, check_agent_name
from cspd.transport import listening_socket
from cspd.unit.manager import Manager, sidecar_settings
from cspd.unit.supervise import Supervised

log = logging.getLogger("cspd")

LOG_LINES = 1000
DAY_SEC = 86400.0


class LogTail(logging.Handler):
    """The last lines of the log, for `status`."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def gateway_agent(config: UnitConfig) -> Agent:
    return Agent(config.name, config.room, config.deliver.expire_sec, sidecar_settings(config))


@attrs.define(eq=False)
class Daemon:
    """Reload and removal touch files, units and gateway; here they meet."""

    paths: Paths
    config: DaemonConfig
    hub: Hub
    manager: Manager
    tail: LogTail
    reloaded: trio.Event = attrs.Factory(trio.Event)  # replaced at each reload
    replacing: trio.Event = attrs.Factory(trio.Event)  # the installed version shall take over
    _reexecs: bool = False
    _told: dict[str, tuple[object, ...]] = attrs.Factory(dict)  # what the world was last told of each agent

    def changed(self, supervised: Supervised) -> None:
        """An agent's state or activity may have changed: an event, if it has."""
        if supervised.name not in self.hub.agents:
            return
        now = agent_json(self.hub, supervised)
        facts = {key: now[key] for key in ("state", "activity", "reason", "pid")}
        before = self._told.get(supervised.name, ())
        if before == tuple(facts.values()):
            return
        self._told[supervised.name] = tuple(facts.values())
        if before[:1] != (now["state"],):
            log.info("%s: %s%s", supervised.name, now["state"], f": {now['reason']}" if now["reason"] else "")
        self.hub.note_agent(supervised.name, facts)

    async def reload(self) -> dict[str, Any]:
        """Read everything again. Raises ConfigError with all problems, and then nothing has changed."""
        daemon, units = load_all(self.paths)
        known = {name: unit.unit.config for name, unit in self.manager.units.items()}
        self._take(daemon)
        for name, config in units.items():
            if known.get(name) != config:
                await self._load(config)
        removed = sorted(set(known) - set(units))
        for name in removed:
            await self.manager.remove(name)
            self.hub.remove_agent(name)
        return {
            "loaded": sorted(set(units) - set(known)),
            "changed": sorted(name for name in units if name in known and known[name] != units[name]),
            "removed": removed,
        }

    def _take(self, config: DaemonConfig) -> None:
        self.config = config
        self.reloaded.set()
        self.reloaded = trio.Event()
        logging.getLogger().setLevel(config.log.level.upper())
        self.hub.rooms.topics = {"lobby": "", **{name: room.topic for name, room in config.rooms.items()}}

    async def _load(self, config: UnitConfig) -> None:
        await self.hub.add_agent(gateway_agent(config))
        await self.manager.load(config)

    async def load_unit(self, name: str) -> None:
        """Read one unit file. Raises ConfigError, or CspError("no-such-agent") when there is no file."""
        path = self.paths.unit_file(check_agent_name(name))
        if not path.exists():
            raise CspError("no-such-agent", f"agent: {name}: {path}: no such file", f"cspctl add {name} -- COMMAND")
        await self._load(read_unit(path, known_profiles(self.paths)))

    async def remove_unit(self, name: str) -> None:
        if name in self.manager.units or not self.paths.unit_file(check_agent_name(name)).exists():
            await self.manager.remove(name)
        self.hub.remove_agent(name)
        self.paths.unit_file(name).unlink(missing_ok=True)

    @contextmanager
    def one_reexec(self) -> Iterator[None]:
        """Raises CspError("busy") while another one is under way."""
        if self._reexecs:
            raise CspError("busy", "reexec: it is under way already", "try again later")
        self._reexecs = True
        try:
            yield
        finally:
            self._reexecs = False

    async def check_installed(self) -> None:
        await succession.check_installed()

    def replace_soon(self) -> None:
        self.replacing.set()

    def log_of(self, name: str) -> list[str]:
        return [line for line in self.tail.lines if f"{name}: " in line][-10:]


async def serve(paths: Paths, tail: LogTail, listener_fd: int | None = None) -> int | None:
    """Run cspd until SIGTERM or SIGINT: -> None. Or until the installed version shall take over: -> the listener.

    `listener_fd` is that of the version before us. Raises ConfigError for a broken cspd.toml, before anything is
    started.
    """
    loaded = load_readable(paths)
    for problems in loaded.broken.values():
        for line in problems:
            log.error("%s: left out", line)
    hub = Hub()
    async with open_history(paths.history_db, on_commit=hub.committed) as history:
        if history.quarantined:
            log.error("history: damaged: set aside as %s; a new one was begun", history.quarantined)
        await hub.start(history)
        listener = socket.socket(fileno=listener_fd) if listener_fd is not None else None
        return await _serve_with(paths, loaded, hub, history, tail, listener or listening_socket(paths.control_socket))


async def _serve_with(
    paths: Paths, loaded: Loaded, hub: Hub, history: History, tail: LogTail, listener: socket.socket
) -> int | None:
    manager: Manager
    keeper = KeeperClient(paths, lambda about: manager.keeper_list(about), lambda event: manager.keeper_event(event))
    daemon: Daemon
    manager = Manager(paths, keeper, lambda supervised: daemon.changed(supervised))
    daemon = Daemon(paths, loaded.daemon, hub, manager, tail)
    daemon._take(loaded.daemon)
    services = Services(paths, hub, manager, daemon, trio.current_time())
    kept = None
    with listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(keeper.serve)
            for unit in loaded.units.values():
                await hub.add_agent(gateway_agent(unit))
            nursery.start_soon(hub.expire)
            nursery.start_soon(_forget_old, daemon, history)
            await nursery.start(manager.serve, list(loaded.units.values()))
            await nursery.start(serve_control, listener, services)
            log.info("ready: %d agents, keeper %d", len(loaded.units), keeper.pid)
            await _wait_end(daemon)
            if daemon.replacing.is_set():
                kept = os.dup(listener.fileno())  # who connects meanwhile waits for the next version
            elif keeper.by_cspd:
                manager.ending()
                await keeper.end()
            nursery.cancel_scope.cancel()
        if kept is None:
            paths.control_socket.unlink(missing_ok=True)
    return kept


async def _forget_old(daemon: Daemon, history: History) -> None:
    """Delete what is older than `history.keep_days`: at the start, daily, and after a reload."""
    while True:
        reloaded, days = daemon.reloaded, daemon.config.history.keep_days
        while days and await history.forget(time.time() - days * DAY_SEC):
            pass  # slice by slice, so that messages get their turn between
        with trio.move_on_after(DAY_SEC if days else float("inf")):
            await reloaded.wait()


async def _wait_end(daemon: Daemon) -> None:
    """Until a signal says that it is the end, or the installed version shall take over."""
    async with trio.open_nursery() as nursery:

        async def heed_signals() -> None:
            await _wait_signals(daemon)
            nursery.cancel_scope.cancel()

        nursery.start_soon(heed_signals)
        await daemon.replacing.wait()
        log.info("replaced by the installed version")
        nursery.cancel_scope.cancel()


async def _wait_signals(daemon: Daemon) -> None:
    """Return at SIGTERM or SIGINT; reload at SIGHUP."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number != signal.SIGHUP:
                log.info("%s: ending", signal.Signals(number).name)
                return
            try:
                await daemon.reload()
                log.info("configuration read again")
            except CspError as exc:
                log.error("reload: %s: nothing was changed", exc)
