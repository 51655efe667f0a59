"""All units: loads them from configuration, starts what is wanted, adopts what the keeper holds, answers requests.

Owns the table of units; each unit itself is owned by its task in `supervise`. What an agent hears and says is the
gateway's, which is told of every change.
"""

import logging
import signal
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import attrs
import trio

from cspd.config import UnitConfig
from cspd.errors import CspError, nearest
from cspd.journal import about
from cspd.keeper.client import KeeperClient
from cspd.keeper.vault import Vault
from cspd.paths import AGENT_NAME, Paths
from cspd.unit.machine import (
    Absent,
    Adopted,
    ConfigChanged,
    Exited,
    Fact,
    RestartAsked,
    Spawned,
    StartAsked,
    State,
    StopAsked,
    Unit,
)
from cspd.unit.policy import ExitStatus
from cspd.unit.spawning import spawn_request
from cspd.unit.supervise import Supervised
from cspd.unit.wiring import forget_wiring
from cspd.wire.version import GIVES_WAY

log = logging.getLogger("cspd.unit")

BRING_AGAIN_SEC = 0.1
ADOPTION_SEC = 30.0  # for a sidecar that lives to find a new keeper; on a busy machine that takes some seconds


@attrs.define(eq=False)
class Manager:
    """Owner of the table of units. `serve` must be running."""

    paths: Paths
    keeper: KeeperClient
    changed: Callable[[Supervised], None]
    units: dict[str, Supervised] = attrs.Factory(dict)
    vault: Vault = attrs.field(init=False)
    _scopes: dict[str, trio.CancelScope] = attrs.Factory(dict)
    _notes: Mapping[str, Any] = attrs.Factory(dict)
    _held: dict[str, dict[str, Any]] = attrs.Factory(dict)  # the keeper's records of agents
    _awaited: dict[str, trio.Event] = attrs.Factory(dict)  # sidecars that have not yet found a new keeper
    _nursery: trio.Nursery | None = None
    _ending: bool = False
    _tells_lost: bool = False  # the keeper says when a sidecar that is awaited has ended; older ones do not

    def __attrs_post_init__(self) -> None:
        self.vault = Vault(self.paths)

    async def serve(
        self,
        configs: Collection[UnitConfig],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Supervise these units, and others as they are loaded, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for name, record in self._held.items():
                if record["exited"] is None:
                    nursery.start_soon(self.vault.fetch, name, record["incarnation"])
            for config in configs:
                note = self._notes.get(config.name)
                self._add(*_remembered(config, note), fresh=note is None)
            nursery.start_soon(self._stop_strangers)
            task_status.started()
            await trio.sleep_forever()  # units come and go; the nursery stays open for them

    # ------------------------------------------------------------------ the table

    def get(self, name: str) -> Supervised:
        """Raises CspError("no-such-agent") with the nearest known name."""
        try:
            return self.units[name]
        except KeyError:
            if AGENT_NAME.fullmatch(name) and (path := self.paths.unit_file(name)).exists():
                raise CspError(
                    "no-such-agent", f"agent: {name!r}: {path} is not loaded", "`cspctl reload` says what is wrong"
                ) from None
            hint = nearest(name, self.units) or "`cspctl list` shows them all"
            raise CspError("no-such-agent", f"agent: {name!r}: not known", hint) from None

    def _add(
        self, unit: Unit, incarnation: int = 0, last_exit: dict[str, Any] | None = None, *, fresh: bool = False
    ) -> Supervised:
        """`fresh`: no cspd before this one has left a note of it."""
        assert self._nursery is not None
        request = partial(spawn_request, self.paths)
        supervised = Supervised(unit, request, self._changed, self.keeper, incarnation, last_exit=last_exit)
        self.units[supervised.name] = supervised
        self._nursery.start_soon(self._run, supervised, fresh)
        return supervised

    async def _run(self, supervised: Supervised, fresh: bool) -> None:
        with trio.CancelScope() as scope:
            self._scopes[supervised.name] = scope
            await self._wait_brought(supervised.name)
            first = self._compare(supervised, self._held.get(supervised.name))
            if fresh and supervised.unit.config.autostart and supervised.unit.state is State.INACTIVE:
                first.append(StartAsked(trio.current_time()))
            await supervised.supervise(first)

    async def _wait_brought(self, name: str) -> None:
        """Until the keeper holds it, or nobody is left to wait for. What a lost keeper said counts for nothing."""
        while name not in self._held:
            life, brought = self.keeper.life, self._awaited.get(name)
            if brought is not None:
                await self._wait_sidecar(name, brought)
            await self.keeper.wait_up()
            if life == self.keeper.life:
                return

    async def _wait_sidecar(self, name: str, brought: trio.Event) -> None:
        """Until it has brought its terminal, has ended, or can be done without because we hold that terminal too.

        While it lives so does its agent, and must not be started a second time.
        """
        with trio.move_on_after(ADOPTION_SEC):
            return await brought.wait()
        if self._tells_lost and not self.vault.holds(name):
            about_it = about(agent=name)
            log.warning("%s: its sidecar lives, but does not come to the new keeper: waiting", name, extra=about_it)
            await brought.wait()

    def _compare(self, supervised: Supervised, record: dict[str, Any] | None) -> list[Fact]:
        """What to say to a unit, in this order, about what the keeper holds of it."""
        now, known = trio.current_time(), supervised.incarnation
        if record is None:
            return [Absent(now)]
        supervised.incarnation = max(known, record["incarnation"])
        supervised.sidecar_pid = record["sidecar_pid"]
        if record["exited"] is None:
            supervised.present = record["incarnation"]
            return [Adopted(record["pid"], now - _age(record), now)]
        if supervised.unit.state in (State.RUNNING, State.STOPPING):
            return self._ended(supervised, record)
        if supervised.unit.state is State.STARTING:
            return self._ended_starting(supervised, record, known)
        return []

    def _ended_starting(self, supervised: Supervised, record: dict[str, Any], known: int) -> list[Fact]:
        """The cspd before us ended before it heard what became of a spawn; its note still has the number before."""
        if record["incarnation"] <= known:  # nothing became of it: this is how the one before ended
            return [Absent(trio.current_time())]
        return [Spawned(record["pid"], trio.current_time()), *self._ended(supervised, record)]

    def _ended(self, supervised: Supervised, record: dict[str, Any]) -> list[Fact]:
        if record["incarnation"] <= supervised.ended:
            return []  # said already, as an event or as part of a list
        supervised.ended = record["incarnation"]
        supervised.last_exit = record["exited"]
        status = ExitStatus.from_plain(record["exited"])
        if supervised.ending:  # no end is a reason to start it again
            supervised.last_words = status.text
            supervised.notify()
            return []
        return [Exited(status, trio.current_time())]

    async def _stop_strangers(self) -> None:
        """Agents that the keeper holds although their unit file has gone meanwhile. One with errors has not gone."""
        for name, record in list(self._held.items()):
            if name not in self.units and record["exited"] is None and not self.paths.unit_file(name).exists():
                log.warning("%s: runs without a unit file: stopping it", name, extra=about(agent=name))
                await self.keeper.tell("signal", name=name, signal=signal.SIGTERM, to="main")

    # ------------------------------------------------------------------ what the keeper says

    def keeper_list(self, told: dict[str, Any]) -> None:
        """The whole state, after each connect; from the second time on the keeper before was lost."""
        self._notes = told["notes"]
        self._held = {record["name"]: record for record in told["agents"]}
        for record in told["agents"]:
            if record["exited"] is not None:
                self.vault.ended(record["name"], record["incarnation"])
        for event in self._awaited.values():
            event.set()  # whom the keeper before has waited for counts no longer
        self._awaited = {name: trio.Event() for name in told.get("awaited", ())}
        self._tells_lost = told.get("tells_lost") is True
        if self.keeper.life > 1 and self._nursery is not None:
            for supervised in self.units.values():
                if supervised.begun:  # else it has asked nothing of any keeper, and looks at this list first
                    self._nursery.start_soon(self._keeper_replaced, supervised)

    async def _keeper_replaced(self, supervised: Supervised) -> None:
        """A new keeper knows only what sidecars bring. What it was asked to spawn itself is not missing there."""
        life = self.keeper.life
        await self._wait_brought(supervised.name)
        await self._bring(supervised.name)
        if life != self.keeper.life:
            return  # that keeper was lost too: the list of the next has begun this anew
        record = self._held.get(supervised.name)
        if record is not None and record["exited"] is None:
            supervised.report(*self._compare(supervised, record))
        elif supervised.unit.state is not State.STARTING:
            # A start may wait in front of this: then it is said of nobody when its turn comes.
            supervised.report(*self._compare(supervised, record), unless=lambda: supervised.spawned_in == life)
        await supervised.remember()

    async def _bring(self, name: str) -> None:
        """Neither keeper nor sidecar has its terminal: give the keeper ours."""
        life = self.keeper.life
        while name not in self._held and life == self.keeper.life:
            try:
                if not await self.vault.bring(name):
                    return
            except OSError as exc:
                log.warning("%s: its terminal was not taken back: %s", name, exc)
            # The keeper's word of it comes on the one connection on which its later words follow in order.
            await trio.sleep(BRING_AGAIN_SEC)
            await self.keeper.wait_up()

    def ending(self) -> None:
        """The keeper stops all agents now."""
        self._ending = True
        for supervised in self.units.values():
            supervised.ending = True
            supervised.notify()

    def keeper_event(self, event: dict[str, Any]) -> None:
        name = event["name"]
        supervised = self.units.get(name)
        match event["event"]:
            case "agent-exited":
                self._held[name] = event
                self.vault.ended(name, event["incarnation"])
                if supervised is not None and event["incarnation"] == supervised.present:
                    supervised.report(*self._ended(supervised, event))
                elif supervised is None and self._nursery is not None:
                    self._nursery.start_soon(self._release, name)
            case "agent-adopted":
                self._held[name] = event
                self._awaited_no_more(name)
                if supervised is not None:  # however late it comes: what lives is the truth
                    supervised.report(*self._compare(supervised, event))
                self._fetch(name, event["incarnation"])
            case "sidecar-lost":
                self._awaited_no_more(name)
            case "sidecar-started" if supervised is not None:
                self._note_sidecar(name, event["pid"])
                supervised.sidecar_pid = event["pid"]
                supervised.notify()
                self._fetch(name, supervised.present)
            case "sidecar-exited" if supervised is not None:
                self._note_sidecar(name, None)
                if supervised.sidecar_pid == event["pid"]:
                    supervised.sidecar_pid = None
                if event["status"] not in ({"code": 0}, {"code": GIVES_WAY}):
                    about_it = about(agent=name)
                    how = ExitStatus.from_plain(event["status"]).text
                    log.warning("%s: sidecar %s %s", name, event["pid"], how, extra=about_it)

    def _awaited_no_more(self, name: str) -> None:
        if name in self._awaited:
            self._awaited[name].set()

    def _note_sidecar(self, name: str, pid: int | None) -> None:
        """The record may be looked at again later."""
        if name in self._held:
            self._held[name] = {**self._held[name], "sidecar_pid": pid}

    def _fetch(self, name: str, incarnation: int) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self.vault.fetch, name, incarnation)

    def _changed(self, supervised: Supervised) -> None:
        """Before it has a sidecar, which comes later, nobody but the keeper holds its terminal."""
        if supervised.unit.state is State.RUNNING and not self.vault.holds(supervised.name, supervised.present):
            self._fetch(supervised.name, supervised.present)
        self.changed(supervised)

    async def _release(self, name: str) -> None:
        self._held.pop(name, None)
        try:
            await self.keeper.call("release", name=name)
        except CspError as exc:
            if exc.code != "no-such-agent":  # that one was never spawned in the keeper's life: nothing is held
                log.warning("%s: %s", name, exc, extra=about(agent=name))

    # ------------------------------------------------------------------ what people ask

    async def start(self, name: str, *, wait: bool = True) -> None:
        """Raises CspError("start-failed") when it is known not to run, "stopping" when cspd is ending."""
        supervised = self._to_start(name)
        await supervised.feed(StartAsked(trio.current_time())).wait()
        if wait:
            await self._wait_up(supervised)

    async def restart(self, name: str, *, wait: bool = True) -> None:
        """Raises what `start` does."""
        supervised = self._to_start(name)
        await supervised.feed(RestartAsked(trio.current_time())).wait()
        if wait:
            await self._wait_up(supervised)

    def _to_start(self, name: str) -> Supervised:
        if self._ending:
            raise CspError("stopping", f"agent: {name}: cspd is ending: nothing is started", "start cspd again")
        return self.get(name)

    async def _wait_up(self, supervised: Supervised) -> None:
        await supervised.wait_until(supervised.settled)
        state, reason = supervised.standing
        if state is not State.RUNNING:
            again = ", it is tried again" if state is State.BACKOFF else ""
            raise CspError(
                "start-failed",
                f"agent: {supervised.name}: {reason or state.value}{again}",
                f"cspctl status {supervised.name}",
            )

    async def stop(self, name: str, *, wait: bool = True) -> None:
        supervised = self.get(name)
        if not supervised.ending:  # else the keeper does it
            await supervised.feed(StopAsked(trio.current_time())).wait()
        if wait:
            await supervised.wait_until(supervised.settled)

    async def kill(self, name: str, number: int) -> None:
        """Raises CspError("not-active") when there is no process."""
        supervised = self.get(name)
        if supervised.unit.pid is None:
            raise CspError("not-active", f"agent: {name}: {supervised.unit.state.value}: there is no process to signal")
        await self.keeper.call("signal", name=name, signal=number, to="group")

    async def load(self, config: UnitConfig) -> Supervised:
        """A new unit, or a new configuration for a known one, which counts from its next start."""
        known = self.units.get(config.name)
        if known is not None:
            await known.feed(ConfigChanged(config)).wait()
            known.notify()
            return known
        supervised = self._add(Unit(config))
        supervised.notify()
        return supervised

    async def remove(self, name: str) -> None:
        """Stop it, and forget it; its file is the caller's."""
        supervised = self.get(name)
        await self.stop(name)
        while supervised.standing[0] not in (State.INACTIVE, State.FAILED):
            await self.stop(name)  # it was started meanwhile
        if self.units.get(name) is not supervised:
            return  # somebody else was quicker
        self._scopes.pop(name).cancel()
        del self.units[name]
        forget_wiring(name, self.paths)
        await self._release(name)
        supervised.notify()


def _age(record: Mapping[str, Any]) -> float:
    """Seconds that an agent has run. The wall clock may have been set meanwhile; older keepers have nothing else."""
    if started_at := record.get("started_at"):
        return time.monotonic() - float(started_at)
    return max(0.0, time.time() - float(record["started_ts"]))


def _remembered(config: UnitConfig, note: Mapping[str, Any] | None) -> tuple[Unit, int, dict[str, Any] | None]:
    """The unit as the cspd before us left it; a fresh one without a note, or with one that cannot be read."""
    if note is None:
        return Unit(config), 0, None
    try:
        then = trio.current_time() - (time.monotonic() - note["monotonic"])
        return Unit.from_memory(config, note["unit"], then), note["incarnation"], note["last_exit"]
    except (KeyError, TypeError, ValueError) as exc:
        log.warning(
            "%s: the note of the last cspd cannot be read: %r", config.name, exc, extra=about(agent=config.name)
        )
        return Unit(config), 0, None
