"""Finds the answer to a question among the events that follow it. Pure.

An answer is the first message of the agent that was asked which names the question as its cause, or which it sent as a
reply to it, to whomever. An agent that says nothing has answered by the text of its turn, where its hooks tell that.
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
    to: str
    step: str = "accepted"
    reason: str = ""

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
        if self.message_id not in (cause, meta.get("reply_to")):
            return None
        return Outcome(True, said["content"], f"as message {said['message_id']}")

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
