"""One task for each unit: it alone owns the `Unit`, feeds it facts one by one and carries out what follows.

The machine decides; the keeper forks and signals. What became of it is told through `changed`.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import attrs
import trio

from cspd.config import UnitConfig
from cspd.errors import CspError
from cspd.unit import machine
from cspd.unit.machine import Spawned, SpawnFailed, State, TimerFired, Unit

INBOX_MAX = 256  # facts waiting for a unit; a person's wish beyond it is refused as "busy"


NEXT = ("command", "working_directory", "environment", "wire", "terminal")  # of a unit's keys: see csp-agent(5)


def _never() -> bool:
    return False


class Keeper(Protocol):
    @property
    def life(self) -> int:
        """Which keeper this is, since this cspd began: 1, 2, ..."""
        ...

    async def call(self, op: str, **fields: Any) -> dict[str, Any]: ...
    async def tell(self, op: str, **fields: Any) -> None: ...


@attrs.frozen
class Asked:
    """A fact, unless it holds no longer when its turn comes, and the event that is set once what follows is done."""

    fact: machine.Fact
    unless: Callable[[], bool] = _never
    done: trio.Event = attrs.Factory(trio.Event)


@attrs.define(eq=False)
class Supervised:
    """A unit with its task's inbox. `incarnation` numbers the forks of this name, never the same number twice."""

    unit: Unit
    spawn_request: Callable[[UnitConfig, int], dict[str, Any]]
    changed: Callable[["Supervised"], None]
    keeper: Keeper
    incarnation: int = 0
    sidecar_pid: int | None = None
    last_exit: dict[str, Any] | None = None
    present: int = attrs.field(init=False)  # the incarnation that runs; older than a later one that came to nothing
    ended: int = 0  # the last incarnation whose end was said to the unit
    runs_as: UnitConfig | None = None  # what was started; None: by a cspd before this one
    spawned_in: int = 0  # the life of the keeper that started the last one
    begun: bool = False  # its task reads the inbox
    ending: bool = False  # cspd ends, and the keeper stops all: the unit hears no more of its agent
    last_words: str = ""  # how the agent has ended meanwhile
    _send: trio.MemorySendChannel[Asked] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[Asked] = attrs.field(init=False)
    _news: trio.Event = attrs.Factory(trio.Event)

    def __attrs_post_init__(self) -> None:
        self.present = self.incarnation
        self._send, self._receive = trio.open_memory_channel[Asked](math.inf)

    @property
    def name(self) -> str:
        return self.unit.config.name

    def feed(self, fact: machine.Fact) -> trio.Event:
        """Queue what somebody wishes; the event is set when it has been handled.

        Raises CspError: "busy" when too many wait, "no-such-agent" for a unit that was removed.
        """
        asked = Asked(fact)
        if self._send.statistics().current_buffer_used >= INBOX_MAX:
            raise CspError("busy", f"agent: {self.name}: {INBOX_MAX} requests wait already", "try again")
        try:
            self._send.send_nowait(asked)
        except trio.ClosedResourceError:
            raise CspError("no-such-agent", f"agent: {self.name}: was removed") from None
        return asked.done

    def report(self, *facts: machine.Fact, unless: Callable[[], bool] = _never) -> None:
        """Queue what the keeper says, which is never refused; a unit that was removed needs no telling.

        A fact is passed over if `unless` holds when its turn comes.
        """
        for fact in facts:
            try:
                self._send.send_nowait(Asked(fact, unless))
            except trio.ClosedResourceError:
                return

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds; it is asked again after each change of this unit."""
        while not condition():
            await self._news.wait()

    def notify(self) -> None:
        """Something that people can see has changed."""
        news, self._news = self._news, trio.Event()
        news.set()
        self.changed(self)

    async def supervise(self, first: Sequence[machine.Fact] = ()) -> None:
        """Run until cancelled; the agent goes on without us. `first` comes before whatever was wished meanwhile."""
        self.begun = True
        try:
            for fact in first:
                await self._handle(fact)
            while True:
                asked = await self._next()
                try:
                    if not asked.unless():
                        await self._handle(asked.fact)
                finally:
                    asked.done.set()
        finally:
            self._send.close()
            for asked in self._left_over():
                asked.done.set()  # nobody may wait for a unit that is gone

    def _left_over(self) -> Iterator[Asked]:
        while True:
            try:
                yield self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    async def _next(self) -> Asked:
        while True:
            deadline = None if self.ending else self.unit.timer_at  # nothing is started any more
            with trio.CancelScope(deadline=math.inf if deadline is None else deadline):
                return await self._receive.receive()
            if not self.ending:
                return Asked(TimerFired(trio.current_time()))

    async def _handle(self, fact: machine.Fact) -> None:
        commands = self.unit.handle(fact)
        await self.remember()
        for command in commands:
            await self._perform(command)

    async def remember(self) -> None:
        """Leave a note with the keeper, for the cspd after us."""
        note = {
            "unit": self.unit.memory(trio.current_time()),
            "incarnation": self.incarnation,
            "last_exit": self.last_exit,
            "monotonic": time.monotonic(),  # the same clock in every process until the machine reboots
        }
        await self.keeper.tell("note", name=self.name, note=note)

    async def _perform(self, command: machine.Command) -> None:
        match command:
            case machine.Changed():
                self.notify()
            case machine.Spawn():
                await self._handle(await self._spawn())
            case machine.Signal(name, to):
                await self._signal(getattr(signal, name), to)
            case machine.SetTimer() | machine.CancelTimer() | machine.Finished():
                pass  # `_next` reads the unit's timer; the keeper releases an ended incarnation by itself

    async def _spawn(self) -> Spawned | SpawnFailed:
        self.incarnation += 1
        before, self.present = self.present, self.incarnation  # already now: the news of a quick end may be first
        sidecar_before = self.sidecar_pid
        try:
            config = self.unit.config
            record = await self.keeper.call("spawn", **self.spawn_request(config, self.incarnation))
        except CspError as exc:
            if self.present == self.incarnation:
                self.present = before  # it may live, and its sidecar may bring it
            return SpawnFailed(exc.sentence, trio.current_time())
        self.spawned_in, self.runs_as = self.keeper.life, config
        if self.sidecar_pid == sidecar_before:  # else the news of its end or of the next one overtook this answer
            self.sidecar_pid = record["sidecar_pid"]
        return Spawned(record["pid"], trio.current_time())

    async def _signal(self, number: int, to: str) -> None:
        await self.keeper.tell("signal", name=self.name, signal=number, to=to)

    @property
    def standing(self) -> tuple[State, str]:
        """State and reason, as people see it."""
        if self.ending and self.last_words:
            return State.INACTIVE, f"stopped with cspd: {self.last_words}"
        if self.ending and self.unit.state in (State.RUNNING, State.STOPPING):
            return State.STOPPING, "cspd is ending"
        if self.ending and self.unit.state is State.BACKOFF:
            return State.INACTIVE, "cspd is ending"
        return self.unit.state, self.unit.reason

    @property
    def coming(self) -> bool:
        """It may run already, and nobody here knows its process yet."""
        return not self.begun or self.unit.state is State.STARTING

    @property
    def outdated(self) -> bool:
        """It runs with something that has changed since, and counts from its next start."""
        old, new = self.runs_as, self.unit.config
        return self.unit.pid is not None and old is not None and any(getattr(old, k) != getattr(new, k) for k in NEXT)

    def settled(self) -> bool:
        """It is neither on its way up nor down."""
        return self.standing[0] not in (State.STARTING, State.STOPPING)
