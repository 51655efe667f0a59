"""Hearing: pieces are put together, and heard as what they were when they came: the agent's own words or a job's."""

from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
from sidecar.screens import profile_of

from cspd.sidecar.emulation import Emulation
from cspd.sidecar.hearing import MANY, Hearing
from cspd.sidecar.intent import BURST_SIZE, Ear
from cspd.sidecar.sight import Sight
from cspd.sidecar.speech import Said
from cspd.sidecar.voice import Voice

pytestmark = pytest.mark.pure

HI = [Said("beta", "hi there")]


@attrs.define
class StandIn:
    """What the kernel and the screen say."""

    own: bool = True
    job: bool = False
    alternate: bool = False
    asked: int = 0

    def in_foreground(self) -> bool:
        self.asked += 1
        return self.own

    def ran_a_job(self) -> bool:
        return self.job

    @property
    def terminal(self) -> Any:
        return SimpleNamespace(alternate=self.alternate)


def hearing(stand_in: StandIn, profile: str = "default", **settings: Any) -> Hearing:
    read = profile_of(profile)
    voice = Voice(read, Ear())
    voice.configure({"share_keywords": True, **settings})
    return Hearing(read, voice, cast(Sight, stand_in), cast(Emulation, stand_in))


def heard(ear: Hearing, *pieces: bytes) -> list[Said]:
    """All that is told when the program then stops."""
    said = [each for piece in pieces for each in ear.add(piece, 0.0)]
    return said + ear.catch_up(0.0) + ear.voice.ended()


def test_a_line_in_pieces_is_one_line() -> None:
    assert heard(hearing(StandIn()), b"@be", b"ta: hi ", b"there\r", b"\n") == HI


def test_nothing_is_told_before_somebody_wants_to_know() -> None:
    ear = hearing(StandIn())
    assert ear.add(b"@beta: hi there\r\n", 0.0) == []
    assert not ear.voice.ear.waits
    assert heard(ear) == HI
    assert heard(ear) == []


def test_the_output_of_a_job_is_not_heard_and_what_the_agent_says_before_and_after_it_is() -> None:
    facts = StandIn()
    ear = hearing(facts)
    said = ear.add(b"@beta: hi there\r\n\r\n", 0.0)
    facts.own = False
    said += ear.add(b"@beta: a job's\r\n\r\n", 0.0)
    facts.own = True
    said += ear.add(b"$ \r\n@gamma: after\r\n", 0.0)
    said += ear.catch_up(0.0) + ear.voice.ended()
    assert said == [*HI, Said("gamma", "after")]


def test_a_full_screen_program_says_nothing() -> None:
    assert heard(hearing(StandIn(alternate=True)), b"@beta: hi there\r\n") == []


def test_where_only_own_words_count_those_behind_a_job_do_not() -> None:
    assert profile_of("shell").own_words_only
    assert heard(hearing(StandIn(job=True), "shell"), b"@beta: hi there\r\n") == []
    assert heard(hearing(StandIn(job=False), "shell"), b"@beta: hi there\r\n") == HI
    assert heard(hearing(StandIn(job=True)), b"@beta: hi there\r\n") == HI


def test_a_burst_is_not_heard_and_the_words_after_the_next_prompt_are() -> None:
    ear = hearing(StandIn())
    assert heard(ear, b"@beta: flood\r\n", b"x" * BURST_SIZE + b"\r\n") == []
    ear.voice.ear.wrote("\r")  # at the next prompt, where the cursor is known again
    assert heard(ear, b"$ \r\n@beta: hi there\r\n") == HI


def test_of_a_flood_no_more_is_kept_than_will_be_heard() -> None:
    ear = hearing(StandIn())
    piece = b"y\r\n" * 20_000
    for _ in range(3 * MANY // len(piece)):
        ear.add(piece, 0.0)
        assert sum(map(len, ear._unheard)) <= MANY + len(piece)


def test_an_agent_that_is_heard_from_its_answers_costs_not_even_a_question() -> None:
    facts = StandIn()
    ear = hearing(facts, "claude")
    assert heard(ear, b"@beta: hi there\r\n") == []
    assert facts.asked == 0
    muted = hearing(facts, share_keywords=False)
    assert heard(muted, b"@beta: hi there\r\n") == []
    assert facts.asked == 0
