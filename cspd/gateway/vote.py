"""One vote of a room: who may vote, which ballots there are, what came out. Pure.

The members at its opening are asked, and the person may vote too. A second ballot replaces the first.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from cspd.errors import CspError, nearest
from cspd.gateway.identity import HUMAN

CHOICES_MAX = 20
QUESTION_MAX, CHOICE_MAX = 2000, 200  # characters
VOTE_SEC = 600.0


@attrs.define
class Vote:
    """`ballots`: voter -> choice. Closed at `due_ts` (wall clock), or when all of `voters` have voted."""

    question: str
    choices: tuple[str, ...]
    voters: tuple[str, ...]
    due_ts: float
    ballots: dict[str, str] = attrs.Factory(dict)

    @classmethod
    def opened(cls, question: str, choices: tuple[str, ...], voters: tuple[str, ...], due_ts: float) -> "Vote":
        """Raises CspError("invalid-params") for choices that cannot be told apart, and the like."""
        texts = tuple(" ".join(choice.split()) for choice in choices)
        if not 2 <= len(texts) <= CHOICES_MAX:
            raise CspError("invalid-params", f"choices: {len(texts)} given: expected 2 to {CHOICES_MAX}")
        if not question.strip() or len(question) > QUESTION_MAX:
            raise CspError("invalid-params", f"question: {len(question)} characters: expected 1 to {QUESTION_MAX}")
        for text in texts:
            if not 1 <= len(text) <= CHOICE_MAX:
                raise CspError("invalid-params", f"choice: {text!r:.80}: expected 1 to {CHOICE_MAX} characters")
        if len({text.casefold() for text in texts}) < len(texts):
            raise CspError("invalid-params", f"choices: {', '.join(texts)}: two of them are the same")
        return cls(question.strip(), texts, voters, due_ts)

    def choice(self, voter: str, said: str) -> str:
        """What a ballot means: a choice, in any case, or its number.

        Raises CspError: "not-a-voter", "no-such-choice".
        """
        if voter != HUMAN and voter not in self.voters:
            raise CspError("not-a-voter", f"vote: {voter}: was not in the room when the vote was opened")
        text = " ".join(said.split())
        same = {choice.casefold(): choice for choice in self.choices}
        if text.casefold() in same:
            return same[text.casefold()]
        if text.isascii() and text.isdigit() and 1 <= int(text) <= len(self.choices):
            return self.choices[int(text) - 1]
        hint = nearest(text, self.choices) or "or their numbers"
        raise CspError("no-such-choice", f"vote: {text!r:.80}: expected one of {', '.join(self.choices)}", hint)

    def cast(self, voter: str, choice: str) -> None:
        self.ballots[voter] = choice

    def without(self, voter: str) -> None:
        """It has left; a ballot that it cast counts."""
        self.voters = tuple(each for each in self.voters if each != voter)

    @property
    def missing(self) -> list[str]:
        return [voter for voter in self.voters if voter not in self.ballots]

    def counts(self) -> dict[str, list[str]]:
        """Each choice with who is for it, the most wanted first."""
        voices = {choice: sorted(v for v, each in self.ballots.items() if each == choice) for choice in self.choices}
        return dict(sorted(voices.items(), key=lambda entry: -len(entry[1])))

    def winners(self) -> list[str]:
        """More than one: a tie. None: nobody has voted."""
        counts = self.counts()
        most = max(map(len, counts.values()))
        return [choice for choice, voices in counts.items() if most and len(voices) == most]

    def as_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Vote":
        return cls(**{**kept, "choices": tuple(kept["choices"]), "voters": tuple(kept["voters"])})
