"""Finds the answer to a question among the events that follow it. Pure.

The answer is what the agent that was asked says to the asker in the turn of the question, or in reply to it. An agent
that says nothing to the asker has answered by the text of its turn, where its hooks tell that, else by what it said to
others.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from cspd.gateway.question import ASK, Asked

NEVER = ("refused", "expired", "unknown")  # the question will not be answered any more


@attrs.frozen
class Outcome:
    """How it ended. `answered` False: `why` says what there is instead."""

    answered: bool
    answer: str = ""
    why: str = ""
    message_id: str = ""  # of the answer, where it is a message


@attrs.define
class Question:
    """One that was asked. Feed it every event behind it, in order."""

    asked: Asked
    step: str = "accepted"
    reason: str = ""
    aside: Outcome | None = None  # what it said to others in the meantime
    withheld: dict[str, Outcome] = attrs.Factory(dict)  # said, but the loop guard or the floor holds it back

    def see(self, kind: str, data: Mapping[str, Any]) -> Outcome | None:
        """The outcome, once it is known. `kind` and `data` are an event's."""
        if kind == "message":
            return self._message(data)
        if kind != "delivery":
            return None
        if data.get("message_id") == self.asked.message_id:
            return self._step(data)
        return self.withheld.get(data.get("message_id", "")) if data.get("reason") == ASK else None

    def _message(self, said: Mapping[str, Any]) -> Outcome | None:
        if not self.asked.is_answered_by(said["from"], said["kind"], said["meta"]):
            return None
        asker, replies = self.asked.asker, said["meta"].get("reply_to") == self.asked.message_id
        outcome = Outcome(True, said["content"], f"as message {said['message_id']}", said["message_id"])
        delivery = said["deliveries"].get(asker)
        if delivery is not None and delivery["step"] == "held" and delivery["reason"] != ASK:
            self.withheld[outcome.message_id] = outcome
            return None
        if replies or asker == said["to"] or delivery is not None:
            return outcome
        self.aside = self.aside or outcome
        return None

    def _step(self, data: Mapping[str, Any]) -> Outcome | None:
        self.step, self.reason = data["step"], data.get("reason") or ""
        if self.step in NEVER:
            return Outcome(False, why=f"the question is {self.standing}")
        answer = data.get("answer")
        if self.step == "turn_ended" and isinstance(answer, str) and answer.strip():
            return Outcome(True, answer, "as the text of its turn")
        return None

    @property
    def over(self) -> bool:
        """The turn has ended without an answer: only a message that is just being said can still be one."""
        return self.step == "turn_ended"

    @property
    def standing(self) -> str:
        """Where it stands, for people and models."""
        return f"{self.step} ({self.reason})" if self.reason else self.step

    def given_up(self, patience: float) -> Outcome:
        """Nothing more is waited for."""
        if self.aside is not None:
            return self.aside
        if self.withheld:
            return Outcome(False, why="it has answered, but the answer is held back until a person lets it go on")
        if self.over:
            return Outcome(False, why="its turn ended and it said nothing to anybody")
        late = "what it says later comes to you as a message, if it says it to you"
        return Outcome(False, why=f"no answer within {patience:g} s: the question is {self.standing}; {late}")
