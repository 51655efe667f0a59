"""Decides what a unit does next: facts come in, commands go out; a table has one cell for each (state, fact).

What is *wanted* is apart from what *is* (the state). An impossible fact is refused and changes nothing.
Forking, signals, clocks and telling the world are left to `supervise`; whether to restart at all to `policy`.
"""

# How to drive it. One task owns the unit. It stores `memory()` after each `handle`, before it carries out the
# commands, in their order. Spawn is answered by Spawned or SpawnFailed; Exited comes after Spawned, once.
# After `from_memory` the task sets a timer for `timer_at` (if any) and says what it found: Adopted when the
# incarnation lives, Exited when its status was written down, else Absent.

import enum
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from cspd.config import UnitConfig
from cspd.unit.policy import SPAWN_FAILED, UNKNOWN, Again, Done, ExitStatus, GiveUp, History, verdict

KILL_AGAIN_SEC = 1.0  # a process in uninterruptible sleep outlives SIGKILL, and sessions can fork meanwhile


class State(enum.StrEnum):
    INACTIVE = "inactive"
    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    FAILED = "failed"


class Want(enum.StrEnum):
    """Up from a person's start until a stop, a clean end or the start limit settles it."""

    UP = "up"
    DOWN = "down"


# --- facts; `now` is monotonic seconds on the caller's clock


@attrs.frozen
class StartAsked:
    """A person's wish. `systemctl reset-failed` and `start` in one: it forgets the start limit's history."""

    now: float


@attrs.frozen
class StopAsked:
    now: float


@attrs.frozen
class RestartAsked:
    """Stop, then start. While starting, the start under way is the restart. Forgets the history too."""

    now: float


@attrs.frozen
class Spawned:
    pid: int
    now: float

    @property
    def started_at(self) -> float:
        return self.now


@attrs.frozen
class SpawnFailed:
    """The program could not be executed; `reason` is for people ("claude: not found")."""

    reason: str
    now: float


@attrs.frozen
class Exited:
    status: ExitStatus
    now: float


@attrs.frozen
class TimerFired:
    now: float


@attrs.frozen
class Adopted:
    """The keeper holds a living incarnation of this unit. Its word is the truth, whatever our memory says."""

    pid: int
    started_at: float
    now: float


@attrs.frozen
class Absent:
    """The keeper holds no incarnation of this unit and does not know how the last one ended."""

    now: float
    status: ExitStatus = attrs.field(default=UNKNOWN, init=False)


@attrs.frozen
class ConfigChanged:
    """Reload. It counts from the next decision on; what runs, runs on, and a timer that is set stays."""

    config: UnitConfig


Request = StartAsked | StopAsked | RestartAsked
Report = Spawned | SpawnFailed | Exited | TimerFired | Adopted | Absent
Fact = Request | Report | ConfigChanged


# --- commands


@attrs.frozen
class Changed:
    """Tell the world. Sent when the state, the reason or the pid is another one; always the first command."""

    state: State
    reason: str


@attrs.frozen
class Spawn:
    """Start an incarnation with the unit's present configuration."""


@attrs.frozen
class Signal:
    """Send to the main process' group, or to every process of its session. No such process is success."""

    name: str
    to: str  # "main" or "session"


@attrs.frozen
class SetTimer:
    """TimerFired at this time. Replaces an earlier timer: a unit has at most one."""

    at: float


@attrs.frozen
class CancelTimer:
    """No timer is needed any longer (perhaps because it has just fired)."""


@attrs.frozen
class Finished:
    """The incarnation has ended: its terminal and sidecar may be released (the socket stays)."""


Command = Changed | Spawn | Signal | SetTimer | CancelTimer | Finished


class ImpossibleFact(RuntimeError):
    """A fact that cannot be true in this state: a bug of the caller, not a wrong request of a person."""


@attrs.define
class Unit:
    """One supervised agent. `handle` is the only thing that changes it."""

    config: UnitConfig
    state: State = State.INACTIVE
    want: Want = Want.DOWN
    reason: str = ""
    pid: int | None = None
    started_at: float | None = None  # of the present incarnation; None unless running or stopping
    timer_at: float | None = None  # not None exactly in backoff and stopping
    history: History = attrs.field(factory=History)

    @property
    def restarts(self) -> int:
        return self.history.restarts

    def handle(self, fact: Fact) -> list[Command]:
        """The commands that follow from this fact. Raises ImpossibleFact, and then nothing has changed."""
        cell = TABLE[type(fact)][COLUMNS.index(self.state)]
        if cell is None:
            raise ImpossibleFact(f"unit {self.config.name}: {self.state}: {fact!r} cannot be")
        if isinstance(fact, TimerFired) and self.timer_at is not None and fact.now < self.timer_at:
            return []  # an older timer, on its way when it was replaced
        shown, timer_at = (self.state, self.reason, self.pid), self.timer_at
        commands = cell(self, fact)
        if self.timer_at != timer_at:
            commands.insert(0, CancelTimer() if self.timer_at is None else SetTimer(self.timer_at))
        if (self.state, self.reason, self.pid) != shown:
            commands.insert(0, Changed(self.state, self.reason))
        return commands

    def memory(self, now: float) -> dict[str, Any]:
        """What has to survive a restart of cspd, as plain JSON; times are relative to `now`."""
        return {
            "state": self.state.value,
            "want": self.want.value,
            "reason": self.reason,
            "pid": self.pid,
            "started_ago": None if self.started_at is None else now - self.started_at,
            "timer_in": None if self.timer_at is None else self.timer_at - now,
            **self.history.to_plain(now),
        }

    @classmethod
    def from_memory(cls, config: UnitConfig, memory: Mapping[str, Any], now: float) -> "Unit":
        """The unit as it was when `memory` was called; `now` is that moment on the present clock.

        Unknown keys are ignored. KeyError, TypeError or ValueError for anything that `memory` does not write.
        """
        started_ago, timer_in = memory["started_ago"], memory["timer_in"]
        return cls(
            config,
            state=State(memory["state"]),
            want=Want(memory["want"]),
            reason=str(memory["reason"]),
            pid=memory["pid"],
            started_at=None if started_ago is None else now - float(started_ago),
            timer_at=None if timer_in is None else now + float(timer_in),
            history=History.from_plain(memory, now),
        )


# --- cells: requests, then reports


def ignore(unit: Unit, fact: Fact) -> list[Command]:
    """Nothing to do: already so, or a timer that was on its way when it was cancelled."""
    return []


def start(unit: Unit, fact: StartAsked | RestartAsked) -> list[Command]:
    unit.history = History()
    unit.want = Want.UP
    return spawn(unit, fact.now)


def keep_up(unit: Unit, fact: StartAsked | RestartAsked) -> list[Command]:
    """In starting and stopping: only the wish changes, the way there is already under way."""
    if unit.want is Want.DOWN:
        unit.history = History()
        unit.want = Want.UP
        unit.reason = "" if unit.state is State.STARTING else "to be started again"
    return []


def keep_down(unit: Unit, fact: StopAsked) -> list[Command]:
    """In starting there is nothing to signal yet: remembered until Spawned. In stopping: no start after."""
    if unit.want is Want.UP:
        unit.want = Want.DOWN
        unit.reason = "stop asked"
    return []


def stop(unit: Unit, fact: StopAsked) -> list[Command]:
    unit.want = Want.DOWN
    return begin_stop(unit, "stop asked", fact.now)


def restart(unit: Unit, fact: RestartAsked) -> list[Command]:
    unit.history = History()
    return begin_stop(unit, "restart asked", fact.now)


def no_more(unit: Unit, fact: StopAsked) -> list[Command]:
    return rest(unit, State.INACTIVE, "stop asked before the next start")


def reconfigure(unit: Unit, fact: ConfigChanged) -> list[Command]:
    if fact.config.name != unit.config.name:
        raise ImpossibleFact(f"unit {unit.config.name}: configuration of {fact.config.name}")
    unit.config = fact.config
    return []


def spawned(unit: Unit, fact: Spawned | Adopted) -> list[Command]:
    unit.pid, unit.started_at = fact.pid, fact.started_at
    if unit.want is Want.DOWN:
        return begin_stop(unit, "stop asked", fact.now)
    enter(unit, State.RUNNING)
    return []


def adopt(unit: Unit, fact: Adopted) -> list[Command]:
    """What lives is never killed because our memory is old: we may have ended before writing it down."""
    unit.want = Want.UP
    return spawned(unit, fact)


def adopt_stopping(unit: Unit, fact: Adopted) -> list[Command]:
    """The signal is repeated: nobody knows whether the last one went out. The deadline stays the old one."""
    unit.pid, unit.started_at = fact.pid, fact.started_at
    return [Signal(unit.config.stop.signal, "main")]


def spawn_failed(unit: Unit, fact: SpawnFailed) -> list[Command]:
    """Counts as a start and as a failure (policy.SPAWN_FAILED). What was made for the attempt may go."""
    what = f"could not be started: {fact.reason}"
    if unit.want is Want.DOWN:
        return [Finished(), *rest(unit, State.INACTIVE, f"stop asked; {what}")]
    return [Finished(), *decide(unit, SPAWN_FAILED, what, fact.now)]


def never_spawned(unit: Unit, fact: Absent) -> list[Command]:
    """We ended between deciding to spawn and hearing of it, and nothing came of it: not counted."""
    if unit.want is Want.DOWN:
        return rest(unit, State.INACTIVE, "stopped before it was started")
    unit.history = unit.history.never_started()
    return spawn(unit, fact.now)


def exited(unit: Unit, fact: Exited | Absent) -> list[Command]:
    ran_for_sec = 0.0 if unit.started_at is None else fact.now - unit.started_at
    unit.history = unit.history.ended(unit.config.restart, ran_for_sec)
    unit.pid = unit.started_at = None
    return [Finished(), *decide(unit, fact.status, fact.status.text, fact.now)]


def stopped(unit: Unit, fact: Exited | Absent) -> list[Command]:
    unit.pid = unit.started_at = None
    if unit.want is Want.UP:
        return [Finished(), *spawn(unit, fact.now)]
    return [Finished(), *rest(unit, State.INACTIVE, f"stopped: {fact.status.text}")]


def again(unit: Unit, fact: TimerFired) -> list[Command]:
    unit.history = unit.history.restarted()
    return spawn(unit, fact.now)


def kill(unit: Unit, fact: TimerFired) -> list[Command]:
    how = unit.config.stop
    unit.reason = f"did not end within {how.timeout_sec:g} s after {unit.config.stop.signal}: SIGKILL to its session"
    unit.timer_at = fact.now + KILL_AGAIN_SEC
    return [Signal("SIGKILL", "session")]


# --- steps that cells share


def decide(unit: Unit, status: ExitStatus, what: str, now: float) -> list[Command]:
    """After an end, or a failed start, that nobody asked for."""
    match verdict(unit.config.restart, unit.history, status, now):
        case Done():
            return rest(unit, State.INACTIVE, what)
        case GiveUp(why):
            return rest(unit, State.FAILED, f"{what}; {why}" if why else what)
        case Again(at):
            enter(unit, State.BACKOFF, what, at)
            return []


def spawn(unit: Unit, now: float) -> list[Command]:
    enter(unit, State.STARTING)
    unit.history = unit.history.started(unit.config.restart, now)
    return [Spawn()]


def begin_stop(unit: Unit, reason: str, now: float) -> list[Command]:
    enter(unit, State.STOPPING, reason, now + unit.config.stop.timeout_sec)
    return [Signal(unit.config.stop.signal, "main")]


def rest(unit: Unit, state: State, reason: str) -> list[Command]:
    """Inactive or failed: nothing is wanted any longer, so that a new cspd does not start it unasked."""
    enter(unit, state, reason)
    unit.want = Want.DOWN
    return []


def enter(unit: Unit, state: State, reason: str = "", timer_at: float | None = None) -> None:
    unit.state, unit.reason, unit.timer_at = state, reason, timer_at


Cell = Callable[[Unit, Any], list[Command]]  # Any: each cell takes its own kind of fact
no = None  # an impossible fact

# fmt: off
COLUMNS =         (State.INACTIVE, State.STARTING, State.RUNNING, State.BACKOFF, State.STOPPING, State.FAILED)
TABLE: Mapping[type[Fact], tuple[Cell | None, ...]] = {
    StartAsked:    (start,          keep_up,        ignore,        start,         keep_up,        start),
    StopAsked:     (ignore,         keep_down,      stop,          no_more,       keep_down,      ignore),
    RestartAsked:  (start,          keep_up,        restart,       start,         keep_up,        start),
    Spawned:       (no,             spawned,        no,            no,            no,             no),
    SpawnFailed:   (no,             spawn_failed,   no,            no,            no,             no),
    Exited:        (no,             no,             exited,        no,            stopped,        no),
    TimerFired:    (ignore,         ignore,         ignore,        again,         kill,           ignore),
    Adopted:       (adopt,          spawned,        adopt,         adopt,         adopt_stopping, adopt),
    Absent:        (ignore,         never_spawned,  exited,        ignore,        stopped,        ignore),
    ConfigChanged: (reconfigure,) * len(COLUMNS),
}
# fmt: on
