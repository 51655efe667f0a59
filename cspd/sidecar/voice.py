"""An agent's keyword voice: from the exact answers that its hooks tell, or from the lines of its terminal, never both.

Pure. Which of the two the profile says; whether it is heard at all, and the keyword, the unit's settings. Who is meant
and whether there is such an agent is for cspd.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from cspd.profiles.profile import Keywords, Profile
from cspd.sidecar.activity import Activity, Decision
from cspd.sidecar.intent import PAUSE_SEC, Ear
from cspd.sidecar.speech import KEYWORD, Grammar, Said, spoken

AGAIN_SEC = 5.0  # the same answer within this is the same hook, wired twice


@attrs.define
class Voice:
    profile: Profile
    ear: Ear
    on: bool = True
    grammar: Grammar = attrs.field(factory=Grammar)
    _answer: tuple[str, float] | None = None  # since the last prompt

    def configure(self, settings: Mapping[str, Any]) -> None:
        """As the unit says it now; a cspd of another version may not say all of it."""
        self.on = settings["share_keywords"]
        self.grammar = Grammar(settings.get("keyword", KEYWORD), settings.get("keyword_names", {}))
        self.ear.grammar = self.grammar

    @property
    def by_lines(self) -> bool:
        return self.on and self.profile.keywords is Keywords.LINES

    def output(self, data: bytes, now: float, *, listening: bool) -> list[Said]:
        return self.ear.hear(data, now, listening=listening) if self.by_lines else []

    def looked(self, decision: Decision) -> list[Said]:
        """A program that waits for input, or is silent, has said what it wanted to say."""
        waits = decision.activity in (Activity.IDLE, Activity.DIALOG)
        if self.ear.waits and (waits or decision.silent_sec >= PAUSE_SEC):
            return self.ear.paused()
        return []

    def look_again_in(self, decision: Decision) -> float | None:
        return PAUSE_SEC - decision.silent_sec if self.ear.waits else None

    def ended(self) -> list[Said]:
        return self.ear.paused()

    def prompted(self) -> None:
        """A turn begins: its answer is a new one, also when it is the same."""
        self._answer = None

    def answered(self, text: str, now: float) -> list[Said]:
        """The agent's hook gave its answer."""
        before, self._answer = self._answer, (text, now)
        again = before is not None and before[0] == text and now < before[1] + AGAIN_SEC
        if again or not self.on or self.profile.keywords is not Keywords.ANSWER:
            return []
        return spoken(text, self.grammar)
