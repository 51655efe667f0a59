"""Whose turn it is to speak in a room of mode `turns`: order, rounds, warning, timeout. Pure.

One `Floor` is one debate; it is over when its rounds are. What others say meanwhile is held, and who is told what, is
`assembly`'s.
"""

from collections.abc import Mapping
from typing import Any

import attrs

TURN_SEC = 120.0  # for a speaker who neither speaks nor works
TURN_MIN_SEC, TURN_MAX_SEC = 1.0, 86400.0
ROUNDS_MAX = 100
WARN_AT = 2 / 3  # of the time
SETTLE_SEC = 2.0  # after an answer, where no end of the turn is seen: there may be a second message


@attrs.frozen
class Called:
    """It is this member's turn now."""

    name: str


@attrs.frozen
class Warned:
    """Its time is nearly over."""

    name: str
    left_sec: float


@attrs.frozen
class Skipped:
    """It said nothing in time."""

    name: str


@attrs.frozen
class Over:
    """Everybody had the turns that were asked for, or nobody is left."""


Command = Called | Warned | Skipped | Over


@attrs.define
class Floor:
    """`chair`: who opened it; he may speak at any time. Times are wall clock: a floor outlives cspd."""

    order: tuple[str, ...]
    rounds: int
    chair: str
    turn_sec: float = TURN_SEC
    at: int = -1
    round: int = 1
    spoken: bool = False
    early: bool = False  # what it had said before its turn goes on now: it may be content with that
    cue: str = ""  # the message that called the speaker
    warned: bool = False
    due_ts: float = 0.0  # when to look at the speaker again

    @property
    def speaker(self) -> str:
        return self.order[self.at]

    def may_speak(self, name: str) -> bool:
        return name in (self.speaker, self.chair)

    def advance(self, now_ts: float) -> list[Command]:
        """The next one's turn."""
        self.at += 1
        if self.at >= len(self.order):
            self.at, self.round = 0, self.round + 1
        if self.round > self.rounds or not self.order:
            return [Over()]
        self.spoken = self.early = self.warned = False
        self.due_ts = now_ts + self.turn_sec * WARN_AT
        return [Called(self.speaker)]

    def heard(self, name: str, now_ts: float, cause: str | None = None) -> None:
        """This member said something in the room; `cause` is what it was told, if that is known.

        What it says of something else before it has read that it is its turn is no answer to that.
        """
        if name != self.speaker:
            return
        if cause is not None and cause != self.cue and not self.spoken:
            self.early = True
        else:
            self.spoken, self.due_ts = True, now_ts + SETTLE_SEC

    def called(self, cue: str, early: bool) -> None:
        """The speaker is being told, by this message."""
        self.cue, self.early = cue, early

    def turn_ended(self, name: str, message_id: str, now_ts: float) -> list[Command]:
        """The program has come to rest from what it was told: if it has spoken, that was its answer."""
        answered = message_id == self.cue and (self.spoken or self.early)
        return self.advance(now_ts) if name == self.speaker and answered else []

    def tick(self, now_ts: float, working: bool) -> list[Command]:
        """Due or not. A speaker that works has all the time it needs."""
        if now_ts < self.due_ts:
            return []
        left_sec = self.turn_sec * (1 - WARN_AT)
        if working:
            self.due_ts = now_ts + (SETTLE_SEC if self.spoken else left_sec)
            return []
        if self.spoken:
            return self.advance(now_ts)
        if not self.warned:
            self.warned, self.due_ts = True, now_ts + left_sec
            return [Warned(self.speaker, left_sec)]
        return [Skipped(self.speaker), *self.advance(now_ts)]

    def without(self, name: str, now_ts: float) -> list[Command]:
        """This member has left."""
        if name not in self.order:
            return []
        place, was_speaker = self.order.index(name), name == self.speaker
        self.order = tuple(each for each in self.order if each != name)
        if place <= self.at:
            self.at -= 1
        return self.advance(now_ts) if was_speaker else []

    def as_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Floor":
        return cls(**{**kept, "order": tuple(kept["order"])})
