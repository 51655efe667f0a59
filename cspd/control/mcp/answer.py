"""Finds the answer to a question among the events that follow it. Pure.

The answer is what the agent that was asked says to the asker in the turn of the question, or in reply to it. An agent
that says nothing to the asker has answered by the text of its turn, where its hooks tell that, else by what it said to
others.
"""

from collections.abc import Mapping
from typing import Any

import attrs

NEVER = ("refused", "expired", "unknown")  # the question will not be answered any more


@attrs.frozen
class Outcome:
    """How it ended. `answered` False: `why` says what there is instead."""

    answered: bool
    answer: str = ""
    why: str = ""


@attrs.define
class Question:
    """One that was asked. Feed it every event behind it, in order."""

    message_id: str
    asker: str
    to: str
    step: str = "accepted"
    reason: str = ""
    aside: Outcome | None = None  # what it said to others in the meantime

    def see(self, kind: str, data: Mapping[str, Any]) -> Outcome | None:
        """The outcome, once it is known. `kind` and `data` are an event's."""
        if kind == "message":
            return self._message(data)
        if kind == "delivery" and data.get("message_id") == self.message_id:
            return self._step(data)
        return None

    def _message(self, said: Mapping[str, Any]) -> Outcome | None:
        if said["from"] != self.to or said["kind"] != "message":
            return None
        meta = said["meta"]
        chain = meta.get("chain")
        cause = chain.get("cause") if isinstance(chain, Mapping) else None
        replies = meta.get("reply_to") == self.message_id
        if not replies and cause != self.message_id:
            return None
        outcome = Outcome(True, said["content"], f"as message {said['message_id']}")
        if replies or self.asker == said["to"] or self.asker in said["deliveries"]:
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
        if self.over:
            return Outcome(False, why="its turn ended and it said nothing to anybody")
        late = "what it says later comes to you as a message, if it says it to you"
        return Outcome(False, why=f"no answer within {patience:g} s: the question is {self.standing}; {late}")
