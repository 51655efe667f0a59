"""A person's keys and lines: keys wait for a message that is typed, but not for long, and submitted lines are told."""

import pytest
from sidecar.lineprogram import PASTE, TEXT, Terminal

from cspd.sidecar.orders import HumanLine, HumanTyped, Report

pytestmark = pytest.mark.pure


def test_keys_wait_for_the_submit_and_follow_in_order() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.05)
    terminal.type(b"l")
    terminal.type(b"s\r")
    terminal.run(3)
    assert terminal.bytes() == PASTE + b"\r" + b"ls\r"
    assert terminal.submitted == [TEXT, "ls"]
    assert max(at for at, data in terminal.written) < 100.5


def test_keys_wait_no_longer_than_two_seconds() -> None:
    for terminal in (Terminal(deaf=True), Terminal(stubborn=9)):
        terminal.send()
        terminal.run(0.05)
        terminal.type(b"x")
        terminal.run(10)
        released = next(at for at, data in terminal.written if data == b"x")
        assert released <= 102.0
        assert terminal.last().step == "unknown"


def test_keys_pass_at_once_while_a_dialog_is_open_over_the_typed_text() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.type(b"a")
    assert terminal.bytes() == PASTE
    terminal.dialog = True
    terminal.look()
    assert terminal.bytes() == PASTE + b"a"
    terminal.type(b"1")
    assert terminal.bytes() == PASTE + b"a1"


def test_after_a_persons_keys_went_on_enter_is_not_pressed_any_more() -> None:
    terminal = Terminal(stubborn=9)
    terminal.send()
    terminal.run(0.3)
    terminal.type(b"x")
    terminal.run(10)
    assert terminal.written[-1][1] == b"x"


def test_ctrl_c_ends_the_wait_at_once_and_the_message_is_typed_again_when_the_box_is_empty() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.type(b"a")
    terminal.type(b"\x03")
    assert terminal.written[-1] == (terminal.now, b"a\x03")
    terminal.run(0.1)
    assert terminal.last() == Report("m1", "held", "human_typing")
    terminal.run(5)
    assert terminal.submitted == [TEXT]
    assert terminal.bytes().count(b"\r") == 1


def test_ctrl_c_that_leaves_the_text_standing_makes_it_unknown() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.deaf = True
    terminal.type(b"\x03")
    terminal.run(3)
    assert terminal.last() == Report("m1", "unknown", "interrupted by the person while it was typed")
    assert terminal.bytes().count(PASTE) == 1


def test_answers_of_the_outer_terminal_do_not_wait() -> None:
    terminal = Terminal(deaf=True)
    terminal.send()
    terminal.type(b"\x1b[?62;22c")
    assert terminal.written[-1][1] == b"\x1b[?62;22c"
    terminal.type(b"x")
    terminal.type(b"\x1b[3;4R")
    terminal.run(3)
    assert terminal.bytes() == PASTE + b"\x1b[?62;22c" + b"x\x1b[3;4R"


def test_further_keys_of_a_draft_may_go_on_before_the_arbiter_hears_of_them() -> None:
    terminal = Terminal()
    terminal.look()
    assert not terminal.arbiter.lets_pass  # the first key makes a draft of it, which has to be written down before
    terminal.type(b"l")
    assert terminal.arbiter.lets_pass
    written = list(terminal.written)
    pieces = tuple(terminal.keys.feed(b"s -l", terminal.now))
    terminal.give(HumanTyped(terminal.now, pieces, passed=True))
    assert terminal.written == written
    terminal.line += "s -l"
    terminal.type(b"\r")
    assert [line.text for line in terminal.lines] == ["ls -l"]


def test_no_key_goes_on_by_itself_while_a_message_is_typed() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.send()
    assert terminal.arbiter.delivery is not None
    terminal.type(b"l")
    assert not terminal.arbiter.lets_pass


# --- a person's lines -------------------------------------------------------------------------------------------


def test_a_submitted_line_of_a_person_is_told() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"make tests")
    terminal.run(1)
    terminal.type(b"\r")
    assert terminal.lines == [HumanLine("make tests", True)]


def test_an_edited_line_is_read_from_the_screen() -> None:
    terminal = Terminal()
    terminal.run(1)
    terminal.look()
    terminal.type(b"\x1b[A")
    terminal.line = "make all"
    terminal.run(1)
    terminal.type(b"\r")
    assert terminal.lines == [HumanLine("make all", False)]


def test_what_is_typed_at_a_password_prompt_is_never_told() -> None:
    terminal = Terminal(prompt="Password: ", paste=False, canonical=True, echo=False)
    terminal.look()
    terminal.type(b"hunter2")
    terminal.echo, terminal.prompt = True, "$ "
    terminal.run(1)
    terminal.look()
    terminal.type(b"\r")
    assert terminal.lines == []


@pytest.mark.parametrize("state", [{"dialog": True}, {"foreground": False}])
def test_answers_to_dialogs_and_keys_of_jobs_are_not_told(state: dict[str, bool]) -> None:
    terminal = Terminal(**state)  # type: ignore[arg-type]
    terminal.look()
    terminal.type(b"yes\r")
    assert terminal.lines == []
