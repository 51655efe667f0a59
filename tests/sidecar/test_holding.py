"""Reasons to hold a message: dialogs, pauses, work, and above all what a person has begun to type."""

import pytest
from sidecar.lineprogram import DEFAULT, PASTE, TEXT, Terminal

from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.orders import HeldBack, MessageWithdrawn, PausedSet

pytestmark = pytest.mark.pure


def held(terminal: Terminal) -> list[str]:
    return [report.reason for report in terminal.reports if report.step == "held"]


def test_nothing_is_typed_into_an_open_dialog_and_it_goes_on_afterwards() -> None:
    terminal = Terminal(dialog=True)
    terminal.send()
    terminal.run(3)
    assert terminal.written == []
    assert held(terminal) == ["dialog"]
    terminal.dialog, terminal.output_at = False, terminal.now
    terminal.run(3)
    assert terminal.submitted == [TEXT]


def test_a_password_prompt_is_a_dialog() -> None:
    terminal = Terminal(prompt="Password: ", paste=False, canonical=True, echo=False)
    terminal.send()
    terminal.run(5)
    assert terminal.written == []
    assert held(terminal) == ["dialog"]


def test_a_pause_holds_and_its_end_releases() -> None:
    terminal = Terminal()
    terminal.give(PausedSet(100.0, True))
    terminal.send()
    terminal.run(3)
    assert (terminal.written, held(terminal)) == ([], ["paused"])
    terminal.give(PausedSet(terminal.now, False))
    terminal.run(1)
    assert terminal.submitted == [TEXT]


def test_a_sidecar_that_gives_way_begins_nothing_and_ends_what_it_began() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.give(HeldBack(terminal.now, True))
    terminal.send("m2", "another message")
    terminal.run(5)
    assert terminal.submitted == [TEXT]
    assert [(r.step, r.reason) for r in terminal.reports if r.message_id == "m2"][-1] == ("held", "starting")
    terminal.give(HeldBack(terminal.now, False))
    terminal.run(5)
    assert terminal.submitted == [TEXT, "another message"]


def test_a_screen_that_no_rule_knows_holds_as_unknown() -> None:
    terminal = Terminal(prompt="E325: ATTENTION", paste=False)
    terminal.output_at = 99.0
    terminal.send()
    assert held(terminal) == ["unknown"]


def test_a_job_in_the_foreground_holds_as_busy() -> None:
    terminal = Terminal(foreground=False)
    terminal.send()
    assert held(terminal) == ["busy"]


def test_the_reason_is_reported_once_however_often_it_is_seen() -> None:
    terminal = Terminal(dialog=True)
    terminal.send()
    for _ in range(5):
        terminal.look()
    assert held(terminal) == ["dialog"]


def test_a_persons_draft_is_never_typed_over_and_its_submit_releases_the_message() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"rm -rf bui")
    terminal.send()
    terminal.run(30)
    assert held(terminal) == ["human_typing"]
    assert terminal.line == "rm -rf bui"
    terminal.type(b"ld\r")
    terminal.run(1.9)
    assert terminal.submitted == ["rm -rf build"]
    terminal.run(3)
    assert terminal.submitted == ["rm -rf build", TEXT]


def test_a_draft_that_was_taken_back_key_by_key_is_seen_to_be_gone() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"ls")
    terminal.send()
    terminal.run(5)
    terminal.type(b"\x7f\x7f")
    terminal.run(4)
    assert terminal.submitted == [TEXT]


@pytest.mark.parametrize("key", [b"\x03", b"\x15"], ids=["ctrl-c", "ctrl-u"])
def test_a_draft_ends_with_a_key_that_clears_it(key: bytes) -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"half a li")
    terminal.send()
    terminal.run(3)
    terminal.type(key)
    terminal.run(4)
    assert terminal.submitted == [TEXT]


def test_a_suspected_draft_of_an_earlier_sidecar_is_respected_until_the_prompt_is_empty() -> None:
    terminal = Terminal(arbiter=Arbiter(DEFAULT, draft_suspected=True), line="half a li")
    terminal.send()
    terminal.run(5)
    assert held(terminal) == ["human_typing"]
    terminal.type(b"\x15")
    terminal.run(4)
    assert terminal.submitted == [TEXT]


def test_typing_begins_exactly_two_seconds_after_the_last_key() -> None:
    terminal = Terminal()
    terminal.look()
    terminal.type(b"\r")
    terminal.send()
    terminal.run(5)
    assert [at for at, data in terminal.written if data == PASTE] == [102.0]


def test_a_message_whose_time_is_over_before_typing_is_expired() -> None:
    terminal = Terminal(dialog=True)
    terminal.send(expires_at=107.5)
    terminal.run(10)
    assert terminal.steps() == ["held", "expired"]


def test_a_withdrawn_message_is_not_typed() -> None:
    terminal = Terminal(dialog=True)
    terminal.send()
    terminal.give(MessageWithdrawn(100.5, "m1"))
    terminal.dialog = False
    terminal.run(3)
    assert (terminal.written, terminal.last().step) == ([], "refused")
