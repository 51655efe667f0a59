"""An agent has one keyword voice: its answers or its lines, as its profile says."""

from typing import Any

import pytest
from sidecar.screens import profile_of

from cspd.sidecar.activity import Activity, Decision
from cspd.sidecar.intent import PAUSE_SEC, Ear
from cspd.sidecar.speech import Said
from cspd.sidecar.voice import AGAIN_SEC, Voice

pytestmark = pytest.mark.pure

WORDS = "@beta: hi there"
HI = [Said("beta", "hi there")]


def voice_of(profile: str, **settings: Any) -> Voice:
    voice = Voice(profile_of(profile), Ear())
    voice.configure({"share_keywords": True, **settings})
    return voice


def seen(activity: Activity, silent_sec: float = 0.0) -> Decision:
    return Decision(activity, "", "", "", (), None, silent_sec)


def lines_of(voice: Voice, decision: Decision) -> list[Said]:
    return voice.output(WORDS.encode() + b"\r\n", 0.0, listening=True) + voice.looked(decision)


def test_a_program_with_answers_is_not_heard_from_its_terminal() -> None:
    for name in ("claude", "codex", "gemini"):
        voice = voice_of(name)
        assert lines_of(voice, seen(Activity.IDLE)) == []
        assert voice.answered(f"Yes.\n\n{WORDS}\n", 0.0) == HI


def test_a_line_oriented_program_is_not_heard_from_answers() -> None:
    voice = voice_of("default")
    assert voice.answered(WORDS, 0.0) == []
    assert lines_of(voice, seen(Activity.IDLE)) == HI


def test_lines_are_heard_when_the_program_waits_or_has_been_silent() -> None:
    assert lines_of(voice_of("default"), seen(Activity.DIALOG)) == HI
    voice = voice_of("default")
    assert lines_of(voice, seen(Activity.BUSY)) == []
    assert voice.look_again_in(seen(Activity.BUSY, 0.5)) == PAUSE_SEC - 0.5
    assert voice.looked(seen(Activity.UNKNOWN, PAUSE_SEC)) == HI
    assert voice.look_again_in(seen(Activity.IDLE)) is None
    assert voice.looked(seen(Activity.IDLE)) == []


def test_the_last_words_of_a_program_that_ends_are_heard() -> None:
    voice = voice_of("default")
    lines_of(voice, seen(Activity.BUSY))
    assert voice.ended() == HI


def test_the_same_hook_wired_twice_is_heard_once_and_the_same_answer_to_another_prompt_again() -> None:
    voice = voice_of("claude")
    assert voice.answered(WORDS, 0.0) == HI
    assert voice.answered(WORDS, 0.1) == []
    voice.prompted()
    assert voice.answered(WORDS, 0.2) == HI
    assert voice.answered(WORDS, 0.2 + AGAIN_SEC) == HI


def test_it_can_be_off_and_its_keyword_another_one() -> None:
    for name in ("claude", "default"):
        voice = voice_of(name, share_keywords=False)
        assert voice.answered(WORDS, 0.0) + lines_of(voice, seen(Activity.IDLE)) == []
    assert voice_of("claude", keyword="TO {name}:").answered(f"{WORDS}\n\nTO beta: hi there", 0.0) == HI
    assert voice_of("claude", keyword_names={"b": "beta"}).answered("@b: hi there", 0.0) == HI
