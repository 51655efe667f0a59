"""What the agent does about submitted messages: when it begins to work on them, when it is done, what it answered.

Pure, judged look by look like the rest of the arbiter, which owns it. The answer is known only where the agent's own
hooks tell it; there the end of a turn is said when the answer is there, because it is part of it.
"""

from collections.abc import Iterable

import attrs

from cspd.sidecar.activity import Activity, Decision
from cspd.sidecar.orders import Report

# The hook of a turn's end takes up to 0.3 s, on a machine with six times the work that it can do more than five; of an
# interrupted turn none may come. Nothing waits for it but the word that the turn is over.
ANSWER_SEC = 10.0
# A CLI that no rule has seen at work may not have begun: it looks ready after Enter, and is silent, for up to a second
# (gemini on a machine with several times the work that it can do). Then its first hook may not have been heard either.
UNSEEN_SEC = 2.0


@attrs.define
class Turn:
    """`since`: when Enter was pressed. `seen`: at work, by a rule; output alone may be the end of the typing.
    `over_at`: since when the agent has been seen idle again.
    """

    message_id: str
    since: float
    started: bool = False
    urgent: bool = False
    seen: bool = False
    over_at: float | None = None


@attrs.define
class Turns:
    """`answers`: the agent's hooks tell the answer. `hooked`: they are wired, for one was heard."""

    answers: bool = False
    hooked: bool = False
    open: list[Turn] = attrs.field(factory=list)
    _answer: tuple[float, str] = (float("-inf"), "")
    _interrupted_at: float = float("-inf")

    def __bool__(self) -> bool:
        return bool(self.open)

    def begin(self, turns: Iterable[Turn]) -> None:
        self.open += turns

    def answered(self, now: float, text: str) -> None:
        """The agent's hook gave its answer: the turn is over as soon as it is seen idle."""
        self._answer = (now, text)

    def interrupted(self, now: float) -> None:
        """No hook will tell an answer of the turn that goes on."""
        self._interrupted_at = now

    def follow(self, decision: Decision, now: float) -> list[Report]:
        """Started and ended turns, by one look."""
        reports = []
        for turn in list(self.open):
            shown = now - decision.silent_sec >= turn.since  # something came after Enter
            if decision.activity is not Activity.IDLE:
                turn.seen = turn.seen or bool(decision.rule)
                if turn.seen or self.hooked:  # else something may draw itself for ever, and nothing would end the turn
                    turn.over_at = None
            if decision.activity in (Activity.BUSY, Activity.DIALOG) and not turn.started:
                if shown or decision.rule:
                    turn.started = True
                    reports.append(Report(turn.message_id, "turn_started", evidence=decision.reason))
            elif decision.activity is Activity.IDLE and (turn.started or shown):
                turn.over_at = now if turn.over_at is None else turn.over_at
                if now >= self._ends_at(turn):
                    self.open.remove(turn)
                    reports.append(self._ended(turn, decision))
        return reports

    def _ended(self, turn: Turn, decision: Decision) -> Report:
        told_at, answer = self._answer
        return Report(
            turn.message_id, "turn_ended", evidence=decision.reason, answer=answer if told_at >= turn.since else ""
        )

    def _ends_at(self, turn: Turn) -> float:
        assert turn.over_at is not None
        if not self.answers or max(self._answer[0], self._interrupted_at) >= turn.since:
            return turn.over_at
        if self.hooked:
            return turn.over_at + ANSWER_SEC
        return turn.over_at + (0.0 if turn.seen else UNSEEN_SEC)

    def deadlines(self) -> list[float]:
        """When a look is due although nothing may have happened."""
        return [self._ends_at(turn) for turn in self.open if turn.over_at is not None]
