"""Decides whether an ended agent is started again, after which delay, and when it has been started too often.

Pure arithmetic over the configuration and the times of earlier starts; `machine` says when to ask.
"""

import signal
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from cspd.config import Restart, RestartPolicy

# systemd.service(5), "Restart=": a clean exit is status 0 or one of these, by which programs are asked to go.
CLEAN_SIGNALS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE})


@attrs.frozen
class ExitStatus:
    """How a process ended: an exit code or a signal number; both None = not known (nobody waited for it)."""

    code: int | None = None
    signal: int | None = None
    core: bool = False

    def __attrs_post_init__(self) -> None:
        if self.code is not None and self.signal is not None:
            raise ValueError(f"a process ends by code {self.code} or by signal {self.signal}, not by both")

    @property
    def known(self) -> bool:
        return self.code is not None or self.signal is not None

    @property
    def clean(self) -> bool:
        """An unknown end is not clean."""
        return self.code == 0 or self.signal in CLEAN_SIGNALS

    @property
    def text(self) -> str:
        if self.signal is not None:
            return f"killed by {signal_name(self.signal)}" + (" (core dumped)" if self.core else "")
        if self.code is not None:
            return f"exited with status {self.code}"
        return "ended, how is not known"

    def to_plain(self) -> dict[str, int | bool | None]:
        return {"code": self.code, "signal": self.signal, "core": self.core}

    @classmethod
    def from_plain(cls, plain: Mapping[str, object]) -> "ExitStatus":
        """The reverse of `to_plain`; further keys are ignored. Raises ValueError for another shape."""
        return cls(number(plain, "code"), number(plain, "signal"), plain.get("core", False) is True)


UNKNOWN = ExitStatus()
# systemd reports a program that cannot be executed as exit status 203/EXEC: an unclean code, not a signal.
# So `on-failure` and `always` try again (it may be in the middle of an upgrade), and `on-abnormal` does not.
SPAWN_FAILED = ExitStatus(code=203)


def number(plain: Mapping[str, object], key: str) -> int | None:
    value = plain.get(key)
    if value is None or type(value) is int:
        return value
    raise ValueError(f"exit status: {key}: got {value!r}, expected an integer or null")


def signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:  # most real-time signals have a number only
        return f"signal {signum}"


def should_restart(policy: RestartPolicy, status: ExitStatus, timed_out: bool = False) -> bool:
    """systemd's table (systemd.service(5), "Restart="), by what ended the process and the policy.

    `timed_out`: it had to be killed because it did not act in time, which is abnormal however it then ended.
    An unknown end counts as a failure, but not as abnormal: that would claim a signal nobody saw.
    """
    match policy:
        case "no":
            return False
        case "always":
            return True
        case "on-success":
            return status.clean and not timed_out
        case "on-failure":
            return not status.clean or timed_out
        case "on-abnormal":
            return timed_out or (status.signal is not None and not status.clean)


def delay(restart: Restart, restarts_in_a_row: int) -> float:
    """Seconds before the next start: delay, delay x factor, delay x factor^2 ... up to the maximum."""
    try:
        grown = restart.delay_sec * restart.backoff_factor**restarts_in_a_row
    except OverflowError:
        # after a thousand doublings; a delay of 0 stays 0 however often it is doubled
        grown = restart.delay_max_sec if restart.delay_sec else 0.0
    return min(grown, restart.delay_max_sec)


def settled(restart: Restart, ran_for_sec: float) -> bool:
    """The agent ran long enough that its next end begins a new row of delays.

    Without a start limit there is no interval to measure by; the longest delay then takes its place.
    """
    return ran_for_sec > (restart.limit_interval_sec or restart.delay_max_sec)


def recent(restart: Restart, starts: Sequence[float], at: float) -> tuple[float, ...]:
    """Those of the start times that still count against the limit at the time `at`."""
    return tuple(start for start in starts if at - start < restart.limit_interval_sec)


def start_allowed(restart: Restart, starts: Sequence[float], at: float) -> bool:
    """Whether a start at `at` keeps to `limit_burst` starts within the interval. Interval 0: always."""
    return len(recent(restart, starts, at)) < restart.limit_burst


@attrs.frozen
class History:
    """What earlier starts mean for the next one. A person's start or restart begins a new history."""

    starts: tuple[float, ...] = ()  # those that count against the limit
    restarts: int = 0  # automatic ones, like systemd's NRestarts
    in_a_row: int = 0  # of these, since the last run that was long: the exponent of the delay

    def started(self, restart: Restart, now: float) -> "History":
        return attrs.evolve(self, starts=(*recent(restart, self.starts, now), now))

    def never_started(self) -> "History":
        """The last start came to nothing before anything was executed, through no fault of the agent."""
        return attrs.evolve(self, starts=self.starts[:-1])

    def restarted(self) -> "History":
        return attrs.evolve(self, restarts=self.restarts + 1, in_a_row=self.in_a_row + 1)

    def ended(self, restart: Restart, ran_for_sec: float) -> "History":
        return attrs.evolve(self, in_a_row=0) if settled(restart, ran_for_sec) else self

    def to_plain(self, now: float) -> dict[str, Any]:
        """Plain JSON; times become ages, because the reader has another clock."""
        ages = [now - start for start in self.starts]
        return {"starts_ago": ages, "restarts": self.restarts, "in_a_row": self.in_a_row}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], now: float) -> "History":
        starts = tuple(now - float(ago) for ago in plain["starts_ago"])
        return cls(starts, int(plain["restarts"]), int(plain["in_a_row"]))


@attrs.frozen
class Again:
    """Start it again at this time."""

    at: float


@attrs.frozen
class Done:
    """It ended well, and the policy wants no more of it."""


@attrs.frozen
class GiveUp:
    """It ended badly and is not started again; `why` is "" when the policy alone says so."""

    why: str = ""


def verdict(restart: Restart, history: History, status: ExitStatus, now: float) -> Again | Done | GiveUp:
    """What follows from an end that nobody asked for."""
    if not should_restart(restart.policy, status):
        return Done() if status.clean else GiveUp()
    at = now + delay(restart, history.in_a_row)
    if start_allowed(restart, history.starts, at):
        return Again(at)
    # said now and not when the delay is over: waiting for it would change nothing
    return GiveUp(f"start limit: {restart.limit_burst} starts within {restart.limit_interval_sec:g} s")
