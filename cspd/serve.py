"""The life of cspd: history, keeper, units, gateway, control socket; the nesting is the shutdown order."""

import logging
import signal
import time

import trio

from cspd.configfile import Loaded, load_readable, toml_files
from cspd.control.call import Services
from cspd.control.serve import serve_control
from cspd.daemon import Daemon, gateway_agent, guest_agent
from cspd.errors import CspError
from cspd.gateway.guests import Guests
from cspd.gateway.history import History, open_history
from cspd.gateway.hub import Hub
from cspd.gateway.introducer import Introducer
from cspd.gateway.tokens import Tokens
from cspd.keeper.client import KeeperClient
from cspd.logtail import LogTail
from cspd.paths import Paths
from cspd.profiles.find import find_profile
from cspd.sd import Service
from cspd.signals import ENDING, HEEDED, heeded, let_through
from cspd.succession import ControlSocket, End, Inherited
from cspd.unit.manager import Manager
from cspd.web.serve import serve_web

log = logging.getLogger("cspd")

DAY_SEC = 86400.0


async def serve(
    paths: Paths, loaded: Loaded, keeper: KeeperClient, tail: LogTail, service: Service, held: Inherited
) -> Inherited | None:
    """Run cspd until SIGTERM or SIGINT: -> None. Or until the installed version shall take over: -> what it inherits.

    `held` is what the version before us has left, at first only the lock.
    """
    end, successor = await _serve_once(paths, loaded, keeper, tail, service, held, damaged=False)
    while end is End.DAMAGED:
        loaded, keeper = load_readable(paths), KeeperClient(paths, starts_one=keeper.starts_one)
        end, successor = await _serve_once(paths, loaded, keeper, tail, service, successor, damaged=True)
    return successor if end is End.REPLACED else None


async def _serve_once(
    paths: Paths,
    loaded: Loaded,
    keeper: KeeperClient,
    tail: LogTail,
    service: Service,
    held: Inherited,
    *,
    damaged: bool,
) -> tuple[End, Inherited]:
    """-> why it has ended, and what goes on after it."""
    for problems in loaded.broken.values():
        for line in problems:
            log.error("%s: left out", line)
    for path in toml_files(paths.profiles_dir):
        find_profile(path.stem, paths)  # says what is wrong with it
    hub = Hub()
    async with open_history(paths.history_db, on_commit=hub.committed, damaged=damaged) as history:
        if history.quarantined:
            log.error("history: damaged: set aside as %s; a new one was begun", history.quarantined)
        await hub.start(history)
        return await _serve_with(paths, loaded, hub, history, keeper, tail, service, held)


async def _serve_with(
    paths: Paths,
    loaded: Loaded,
    hub: Hub,
    history: History,
    keeper: KeeperClient,
    tail: LogTail,
    service: Service,
    held: Inherited,
) -> tuple[End, Inherited]:
    daemon: Daemon
    manager = Manager(paths, keeper, lambda supervised: daemon.changed(supervised))
    keeper.on_list, keeper.on_event = manager.keeper_list, manager.keeper_event
    guests = Guests(hub, lambda guest: guest_agent(guest, paths), lambda guest: daemon.changed(guest))
    daemon = Daemon(paths, loaded.daemon, hub, manager, guests, tail, service)
    daemon.take(loaded.daemon)
    tokens = Tokens(history)
    try:
        await tokens.start(paths.token_file)
    except CspError as exc:
        log.error("%s: nobody can register", exc)  # the rest of cspd is worth more than the gateway
    services = Services(paths, hub, manager, guests, tokens, daemon, trio.current_time())
    control = ControlSocket.open(paths.control_socket, service, held)
    with control.listener:
        async with trio.open_nursery() as nursery:
            if not await _start_keeper(nursery, keeper):
                nursery.cancel_scope.cancel()
                control.remove()
                return End.STOPPED, held
            for unit in loaded.units.values():
                await hub.add_agent(gateway_agent(unit, paths))
            await guests.start()
            nursery.start_soon(hub.expire)
            nursery.start_soon(hub.moderator.assembly.run)
            nursery.start_soon(Introducer(hub).run)
            nursery.start_soon(_forget_old, daemon, history)
            nursery.start_soon(daemon.watch_history, history)
            await nursery.start(manager.serve, list(loaded.units.values()))
            await nursery.start(serve_control, control.listener, services)
            end = await _be_ready(services, daemon, nursery)
            left = held if end is End.STOPPED else control.keep(held)
            if keeper.by_cspd and end is End.STOPPED:
                manager.ending()
                await keeper.end()
            nursery.cancel_scope.cancel()
    if end is End.STOPPED:
        control.remove()
    return end, left


async def _be_ready(services: Services, daemon: Daemon, nursery: trio.Nursery) -> End:
    """Serve the web too, and say that all is there; -> why it is to end."""
    service = daemon.service
    async with trio.open_nursery() as outside:  # ends first: nobody out there waits while agents are stopped
        await outside.start(serve_web, services, daemon)
        log.info("ready: %d agents, keeper %d", len(daemon.manager.units), daemon.manager.keeper.pid)
        service.ready(daemon.standing())
        nursery.start_soon(service.feed_watchdog)
        end = await _wait_end(daemon)
        if end is End.STOPPED:
            let_through()  # whoever asks a second time does not want to wait
            service.stopping()
        outside.cancel_scope.cancel()
    return end


async def _forget_old(daemon: Daemon, history: History) -> None:
    """Delete what is older than `history.keep_days`: at the start, daily, and after a reload."""
    while True:
        reloaded, days = daemon.reloaded, daemon.config.history.keep_days
        while days and await history.forget(time.time() - days * DAY_SEC):
            pass  # slice by slice, so that messages get their turn between
        with trio.move_on_after(DAY_SEC if days else float("inf")):
            await reloaded.wait()


async def _start_keeper(nursery: trio.Nursery, keeper: KeeperClient) -> bool:
    """-> is it there? False: it is a service that does not come, and we are to end. Ours comes within seconds."""
    if keeper.starts_one:
        await nursery.start(keeper.serve)
        return True
    with heeded(*ENDING) as signals:
        async with trio.open_nursery() as waiting:

            async def give_up() -> None:
                await signals.wait()
                waiting.cancel_scope.cancel()

            waiting.start_soon(give_up)
            await nursery.start(keeper.serve)
            waiting.cancel_scope.cancel()
            return True
    return False


async def _wait_end(daemon: Daemon) -> End:
    """Until a signal says that it is the end, or another one shall go on, who reads every signal after this."""
    stopped = False
    async with trio.open_nursery() as nursery:

        async def heed_signals() -> None:
            nonlocal stopped
            await _wait_signals(daemon)
            stopped = True
            nursery.cancel_scope.cancel()

        nursery.start_soon(heed_signals)
        await daemon.leaving.wait()
        nursery.cancel_scope.cancel()
    if not stopped and daemon.end is End.REPLACED:
        log.info("replaced by the installed version")
    return End.STOPPED if stopped else daemon.end


async def _wait_signals(daemon: Daemon) -> None:
    """Return at SIGTERM or SIGINT; reload at SIGHUP."""
    with heeded(*HEEDED) as signals:
        while (number := await signals.next()) == signal.SIGHUP:
            try:
                told = await daemon.reload()
                for problem in told["warnings"]:
                    log.error("reload: %s", problem)
                log.info("configuration read again")
            except CspError as exc:
                for problem in exc.data.get("problems") or [exc.sentence]:
                    log.error("reload: %s", problem)
                log.error("reload: nothing was changed")
        log.info("%s: ending", number.name)
