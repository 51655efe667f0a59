"""Dialogs of an agent CLI, before, between and behind paste and Enter: nothing is typed into them."""

import pytest
from sidecar.composer import TEXT, WHOLE, Composer

pytestmark = pytest.mark.pure


def test_nothing_is_typed_into_a_dialog() -> None:
    cli = Composer(dialog=True)
    cli.send()
    cli.run(5)
    assert (cli.keys, cli.steps()) == ([], ["held(dialog)"])
    cli.dialog, cli.output_at = False, cli.now
    cli.run(3)
    assert cli.steps()[1:] == WHOLE


def test_a_dialog_between_paste_and_enter_keeps_enter_back() -> None:
    cli = Composer(dialog_at=100.1)
    cli.send()
    cli.run(5)
    assert cli.steps() == ["typing", "echoed", "echoed(dialog)"]
    assert len(cli.keys) == 1
    cli.dialog, cli.output_at = False, cli.now
    cli.run(5)
    assert cli.steps()[-3:] == WHOLE[-3:]
    assert cli.submitted == [TEXT]


def test_the_time_for_the_echo_stands_still_while_a_dialog_hides_the_box() -> None:
    cli = Composer(dialog_at=100.02)  # it opens when the paste is in the box and nobody has looked yet
    cli.send()
    cli.run(60)
    assert (cli.steps(), cli.line) == (["typing", "typing(dialog)"], TEXT)
    cli.dialog, cli.output_at = False, cli.now
    cli.run(5)
    assert cli.steps()[2:] == WHOLE[1:]
    assert cli.submitted == [TEXT]


def test_after_the_dialog_a_text_that_it_has_swallowed_is_missed() -> None:
    cli = Composer(dialog_at=100.01)
    cli.send()
    cli.run(60)
    cli.dialog, cli.output_at = False, cli.now
    cli.run(4)
    assert cli.steps() == ["typing", "typing(dialog)"]
    cli.run(2)
    assert cli.steps()[2:] == ["unknown(typed, not seen on the screen; not submitted)"]


def test_a_dialog_right_behind_enter_is_waited_for_and_enter_is_not_pressed_into_it() -> None:
    cli = Composer(dialog_at=100.185, newline_enters=1)
    cli.send()
    cli.run(20)
    assert [data for _, data in cli.keys[1:]] == [b"\r"]
    assert cli.steps() == ["typing", "echoed"]
    cli.dialog, cli.output_at = False, cli.now
    cli.run(5)
    assert cli.steps() == WHOLE
    assert cli.submitted == [TEXT]


def test_an_urgent_message_does_not_answer_a_dialog() -> None:
    cli = Composer(dialog=True)
    cli.send(urgent=True)
    cli.run(3)
    assert cli.keys == []
