"""Typed text is recognised in input boxes of full-screen programs, whose cursor stands anywhere."""

import attrs
import pytest

from cspd.profiles.read import read_profile
from cspd.sidecar.box import Anchor, Place, Trace, box_rows, is_empty
from cspd.sidecar.view import View

pytestmark = pytest.mark.pure

PROFILE = read_profile(
    "p", {"p": "[typing]\nplaceholders = ['\\[Pasted text[^\\]]*\\]']\n[box]\nempty = ['Type your']"}
)
FRAME = "─" * 30
TEXT = "[Context: claude sent a message]\nI need you to check the logs of the gateway."


def screen(*box: str, said: tuple[str, ...] = ("● Hello",), cursor: tuple[int, int] = (0, 0)) -> View:
    rows = (*said, "", FRAME, *box, FRAME, "  ? for shortcuts")
    return View(rows=rows, cursor=cursor, alternate=True, bracketed_paste=True, canonical=False, echo=False)


EMPTY = screen("❯")
TYPED = screen("❯ [Context: claude sent a message]", "  I need you to check the logs", "  of the gateway.")
SENT = screen(
    "❯", said=("● Hello", "❯ [Context: claude sent a message]", "  I need you to check the logs of the gateway.")
)


def test_the_box_goes_from_the_lowest_prompt_to_its_frame() -> None:
    assert box_rows(PROFILE, TYPED) == TYPED.rows[3:6]
    assert box_rows(PROFILE, SENT) == ("❯",)
    assert box_rows(PROFILE, View(rows=("nothing",), cursor=(0, 0))) is None


def test_text_in_the_box_is_seen_wrapped_and_indented_as_the_program_likes() -> None:
    trace = Trace.of(PROFILE, EMPTY, TEXT)
    assert trace.seen(EMPTY) is None
    assert trace.seen(TYPED) is Place.BOX
    assert trace.evidence(TYPED) == "of the gateway."
    assert (trace.stands(TYPED, Place.BOX), trace.alone(TYPED, Place.BOX)) == (True, True)


def test_text_that_moved_from_the_box_into_the_conversation_has_left_the_box() -> None:
    trace = Trace.of(PROFILE, EMPTY, TEXT)
    assert trace.stands(SENT, Place.BOX) is False


def test_without_a_box_nothing_can_be_told_about_text_in_it() -> None:
    trace = Trace.of(PROFILE, EMPTY, TEXT)
    assert trace.stands(View(rows=("working",), cursor=(0, 0)), Place.BOX) is None


def test_text_behind_ours_makes_it_not_alone() -> None:
    trace = Trace.of(PROFILE, EMPTY, TEXT)
    glued = screen(*TYPED.rows[3:5], "  of the gateway. and more")
    assert (trace.stands(glued, Place.BOX), trace.alone(glued, Place.BOX)) == (True, False)


def test_a_long_paste_is_known_by_its_placeholder() -> None:
    trace = Trace.of(PROFILE, EMPTY, "long " * 500)
    shown = screen("❯ [Pasted text #1 +80 lines]")
    assert trace.seen(shown) is Place.PLACEHOLDER
    assert trace.stands(shown, Place.PLACEHOLDER) is True
    assert trace.stands(EMPTY, Place.PLACEHOLDER) is False


def test_a_second_message_of_the_same_words_is_seen_only_when_it_stands_there() -> None:
    trace = Trace.of(PROFILE, SENT, TEXT)
    assert trace.seen(SENT) is None
    assert trace.seen(attrs.evolve(TYPED, rows=(*SENT.rows[:3], *TYPED.rows[2:]))) is Place.BOX


def test_an_empty_line_is_known_by_how_it_looked_before_or_by_its_prompt_or_hint() -> None:
    prompt = View(rows=("$",), cursor=(0, 2), canonical=False)
    draft = View(rows=("$ x",), cursor=(0, 3), canonical=False)
    assert is_empty(PROFILE, prompt, None)
    assert not is_empty(PROFILE, draft, None)
    assert is_empty(PROFILE, draft, Anchor.of(PROFILE, draft))
    assert not is_empty(PROFILE, attrs.evolve(draft, cursor=(0, 2)), Anchor.of(PROFILE, prompt))
    assert is_empty(PROFILE, screen(" > Type your message"), None)


def test_a_draft_that_ends_like_a_prompt_is_no_empty_line() -> None:
    prompt = View(rows=("$",), cursor=(0, 2), canonical=False)
    draft = View(rows=("$ ls >",), cursor=(0, 7), canonical=False)
    assert not is_empty(PROFILE, draft, Anchor.of(PROFILE, prompt))


@pytest.mark.parametrize("text", ["y", "---", "日本語", "🙂", "naïve café"])
def test_texts_with_few_or_no_plain_letters_are_recognised(text: str) -> None:
    before = View(rows=("alpha>",), cursor=(0, 7))
    after = View(rows=("alpha> " + text,), cursor=(0, 40))
    trace = Trace.of(PROFILE, before, text)
    assert trace.seen(after) is Place.CURSOR
    submitted = View(rows=("alpha> " + text, text, "alpha>"), cursor=(2, 7))
    assert trace.stands(submitted, Place.CURSOR) is False
