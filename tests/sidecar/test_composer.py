"""Typing into the input box of an agent CLI: one paste, Enter alone, and what proves that the prompt was taken."""

import pytest
from sidecar.composer import LAG_SEC, TEXT, WHOLE, Composer

from cspd.sidecar.orders import PromptAccepted

pytestmark = pytest.mark.pure


def test_a_message_goes_as_one_paste_and_enter_alone_after_the_settle_time() -> None:
    cli = Composer()
    cli.send()
    cli.run(3)
    assert cli.steps() == WHOLE
    assert [data for _, data in cli.keys] == [b"\x1b[200~" + TEXT.encode() + b"\x1b[201~", b"\r"]
    assert cli.keys[1][0] - cli.keys[0][0] == pytest.approx(LAG_SEC + 0.15, abs=0.021)
    assert "a turn has begun: rule title-busy" in cli.evidence("submitted")


def test_a_prompt_that_the_program_shows_as_taken_proves_a_submit_whose_turn_is_too_short_to_see() -> None:
    cli = Composer(turn_sec=0.0)
    cli.send()
    cli.run(3)
    assert "stands above it" in cli.evidence("submitted")
    assert cli.submitted == [TEXT]


def test_a_text_that_only_vanishes_is_not_called_submitted() -> None:
    cli = Composer(swallows=True)
    cli.send()
    cli.run(30)
    assert cli.steps() == ["typing", "echoed"]
    cli.run(40)
    assert cli.steps()[2].startswith("unknown(Enter was pressed and the text has left the input")
    assert len(cli.keys) == 2


def test_the_agents_hook_proves_it_even_then() -> None:
    cli = Composer(swallows=True)
    cli.send()
    cli.run(2)
    cli.give(PromptAccepted(cli.now, f'<pasted_content id="1a2b">\n{TEXT}\n</pasted_content id="1a2b">'))
    assert cli.steps()[2] == "submitted"
    assert cli.evidence("submitted") == "the agent's hook took the prompt"


def test_a_hook_with_another_prompt_proves_nothing() -> None:
    cli = Composer(swallows=True)
    cli.send()
    cli.run(2)
    cli.give(PromptAccepted(cli.now, "what the person typed"))
    assert cli.steps() == ["typing", "echoed"]


def test_an_enter_that_was_taken_for_a_newline_is_pressed_again_and_no_submit_is_claimed_before() -> None:
    cli = Composer(newline_enters=1)
    cli.send()
    cli.run(1)
    assert cli.steps() == ["typing", "echoed"]
    cli.run(3)
    assert cli.steps() == WHOLE
    assert [data for _, data in cli.keys[1:]] == [b"\r", b"\r"]
    assert cli.submitted == [TEXT]


def test_enter_is_pressed_three_times_at_most() -> None:
    cli = Composer(newline_enters=9)
    cli.send()
    cli.run(10)
    assert [data for _, data in cli.keys[1:]] == [b"\r"] * 3
    assert cli.steps()[-1].startswith("unknown(the text still stands")


def test_a_long_paste_is_recognised_by_its_placeholder() -> None:
    cli = Composer(placeholder=True)
    cli.send()
    cli.run(3)
    assert cli.steps() == WHOLE
    assert "[Pasted text #1" in cli.evidence("echoed")


def test_keys_are_let_through_while_only_the_turn_is_waited_for() -> None:
    cli = Composer(swallows=True)
    cli.send()
    cli.run(1)
    cli.type(b"x")
    assert cli.keys[-1][1] == b"x"
    assert cli.steps() == ["typing", "echoed"]
