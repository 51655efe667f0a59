"""A message on its way to a program: what is written and when, what is claimed of it, and never typed twice."""

import pytest
from sidecar.lineprogram import DEFAULT, PASTE, TEXT, Terminal

from cspd.sidecar.activity import decide
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.delivery import Phase
from cspd.sidecar.orders import (
    AgentEnded,
    Look,
    Looked,
    MessageArrived,
    Outgoing,
    PausedSet,
    PromptAccepted,
    Report,
    TimerFired,
    Write,
)

pytestmark = pytest.mark.pure


def test_a_message_is_one_paste_then_enter_alone_after_the_echo_and_the_settle_time() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(3)
    assert terminal.written == [(100.0, PASTE), (pytest.approx(100.21), b"\r")]
    assert terminal.submitted == [TEXT]
    assert terminal.steps() == ["typing", "echoed", "submitted", "turn_started", "turn_ended"]


def test_the_echo_is_claimed_with_the_screen_line_as_evidence() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    assert terminal.last() == Report("m1", "echoed", "", "I need you to check the logs.")


def test_typing_is_reported_before_the_first_byte() -> None:
    terminal = Terminal()
    terminal.look()
    view = terminal.view()
    arbiter = terminal.arbiter
    assert arbiter.handle(MessageArrived(101.0, Outgoing("m1", TEXT))) == [Look()]
    commands = arbiter.handle(Looked(101.0, view, decide(DEFAULT, view, 1.0, 101.0)))
    assert commands[:2] == [Report("m1", "typing"), Write(PASTE)]


def test_without_bracketed_paste_each_line_is_typed_echoed_and_submitted_by_itself() -> None:
    terminal = Terminal(prompt="", paste=False, canonical=True)
    terminal.send(text="one line\n\nanother line")
    terminal.run(4)
    assert [data for _, data in terminal.written] == [b"one line", b"\r", b"another line", b"\r"]
    assert terminal.steps()[:2] == ["typing", "echoed"]
    assert terminal.submitted == ["one line", "another line"]
    assert terminal.last().step == "turn_ended"


def test_the_next_line_follows_although_the_look_that_proved_the_one_before_was_the_last() -> None:
    terminal = Terminal(prompt="> ", paste=False, canonical=True)
    terminal.send(text="one line\nanother line")
    for _ in range(8):  # a machine so loaded that each look comes when the program has long been reading again
        while terminal.answers:
            terminal.program_gets(terminal.answers.pop(0)[1])
            terminal.now += 1.0
            terminal.look()
        if terminal.timer is not None:
            terminal.now, terminal.timer = max(terminal.now, terminal.timer), None
            terminal.give(TimerFired(terminal.now))
    assert terminal.submitted == ["one line", "another line"]
    assert terminal.last().step == "turn_ended"


def test_the_same_text_twice_in_a_row_is_two_deliveries() -> None:
    terminal = Terminal(prompt="", paste=False, canonical=True)
    terminal.send("m1", "y")
    terminal.send("m2", "y")
    terminal.run(6)
    assert terminal.submitted == ["y", "y"]
    assert terminal.last("m1").step == terminal.last("m2").step == "turn_ended"


def test_a_line_that_the_tty_would_cut_is_refused_and_the_next_message_goes() -> None:
    terminal = Terminal(prompt="", paste=False, canonical=True)
    terminal.send("m1", "x" * 4001)
    terminal.send("m2", "short one")
    terminal.run(3)
    assert terminal.last("m1").step == "refused"
    assert "4001 bytes" in terminal.last("m1").reason
    assert terminal.submitted == ["short one"]


def test_the_next_message_waits_until_the_agent_is_idle_again() -> None:
    terminal = Terminal()
    terminal.send("m1", "first message")
    terminal.send("m2", "second message")
    terminal.run(5)
    assert terminal.submitted == ["first message", "second message"]
    ended = next(i for i, r in enumerate(terminal.reports) if (r.message_id, r.step) == ("m1", "turn_ended"))
    typed = next(i for i, r in enumerate(terminal.reports) if (r.message_id, r.step) == ("m2", "typing"))
    assert ended < typed


def test_an_urgent_message_goes_first_in_the_queue() -> None:
    terminal = Terminal()
    terminal.give(PausedSet(100.0, True))
    terminal.send("m1", "plain one")
    terminal.send("m2", "urgent one", urgent=True)
    terminal.send("m3", "urgent two", urgent=True)
    terminal.give(PausedSet(100.0, False))
    terminal.run(8)
    assert terminal.submitted == ["urgent one", "urgent two", "plain one"]


def test_a_duplicate_is_not_typed_but_its_last_step_is_told_again() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(3)
    before = list(terminal.written)
    terminal.send()
    terminal.run(3)
    assert terminal.written == before
    assert terminal.steps()[-2:] == ["turn_ended", "turn_ended"]


# --- what can go wrong on the way -------------------------------------------------------------------------------


def test_text_that_is_never_seen_is_unknown_and_never_followed_by_enter() -> None:
    terminal = Terminal(deaf=True)
    terminal.send()
    terminal.run(10)
    assert terminal.bytes() == PASTE
    assert terminal.last() == Report("m1", "unknown", "typed, not seen on the screen; not submitted")


def test_after_unseen_text_nothing_more_is_typed_until_the_person_cleared_it() -> None:
    terminal = Terminal(deaf=True)
    terminal.send("m1")
    terminal.run(10)
    terminal.send("m2", "another message")
    terminal.run(10)
    assert terminal.last("m2") == Report("m2", "held", "leftover")
    terminal.deaf = False
    terminal.type(b"\x15")
    terminal.run(4)
    assert terminal.submitted == ["another message"]


def test_enter_is_repeated_only_while_the_text_stands_and_three_times_at_most() -> None:
    terminal = Terminal(stubborn=2)
    terminal.send()
    terminal.run(6)
    assert [data for _, data in terminal.written] == [PASTE, b"\r", b"\r", b"\r"]
    assert [round(at - 100.21, 3) for at, data in terminal.written if data == b"\r"] == [0.0, 1.2, 2.4]
    assert terminal.submitted == [TEXT]
    stubborn = Terminal(stubborn=9)
    stubborn.send()
    stubborn.run(10)
    assert stubborn.bytes().count(b"\r") == 3
    assert stubborn.last().step == "unknown"


def test_enter_is_not_repeated_when_something_else_stands_behind_the_text() -> None:
    terminal = Terminal(stubborn=9)
    terminal.send()
    terminal.run(0.5)
    terminal.line += " completed by the program"
    terminal.look()
    terminal.run(5)
    assert terminal.bytes().count(b"\r") == 1
    assert terminal.last().step == "unknown"


def test_text_that_is_away_for_a_moment_only_was_redrawn_not_submitted() -> None:
    terminal = Terminal(stubborn=9)
    terminal.send()
    terminal.run(0.5)
    terminal.line, drawn = "", terminal.line
    terminal.look()
    terminal.run(0.02)
    terminal.line = drawn
    terminal.look()
    terminal.run(0.2)
    assert terminal.last().step == "echoed"


def test_a_dialog_that_opens_before_enter_gets_neither_text_nor_enter() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.dialog = True
    terminal.look()
    terminal.run(20)
    assert terminal.bytes() == PASTE
    assert terminal.last() == Report("m1", "echoed", "dialog")
    terminal.dialog = False
    terminal.look()
    terminal.run(3)
    assert terminal.submitted == [TEXT]


def test_text_that_left_the_box_under_a_dialog_is_unknown() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.dialog = True
    terminal.look()
    terminal.dialog, terminal.line = False, ""
    terminal.look()
    terminal.run(3)
    assert terminal.last().step == "unknown"
    assert b"\r" not in terminal.bytes()


def test_the_agents_own_hook_proves_the_submit() -> None:
    terminal = Terminal(lag=0.01)
    terminal.send()
    terminal.run(0.215)
    assert terminal.arbiter.delivery is not None
    assert terminal.arbiter.delivery.phase is Phase.PROOF
    terminal.give(PromptAccepted(terminal.now, "something else"))
    assert terminal.last().step == "echoed"
    terminal.give(PromptAccepted(terminal.now, TEXT))
    assert terminal.last() == Report("m1", "submitted", "", "the agent's hook took the prompt")


def test_the_end_of_the_agent_makes_the_message_on_its_way_unknown() -> None:
    terminal = Terminal()
    terminal.send()
    terminal.run(0.1)
    terminal.give(AgentEnded(terminal.now))
    assert terminal.last().step == "unknown"
    assert not terminal.arbiter.wants_view


# --- after a crash ----------------------------------------------------------------------------------------------


def test_what_was_being_typed_when_the_sidecar_died_is_unknown_and_not_typed_again() -> None:
    arbiter = Arbiter(DEFAULT)
    ledger = [
        *(("m1", "held", "busy"), ("m1", "typing", ""), ("m2", "typing", ""), ("m2", "echoed", "")),
        *(("m3", "held", "busy"), ("m4", "submitted", ""), ("m5", "unknown", "the agent ended")),
    ]
    assert arbiter.recover(ledger) == [
        Report("m1", "unknown", "sidecar ended while typing"),
        Report("m2", "unknown", "sidecar ended while typing"),
    ]
    assert arbiter.steps["m5"].reason == "the agent ended"
    terminal = Terminal(arbiter=arbiter)
    for message_id in ("m1", "m2", "m4"):
        terminal.send(message_id, "old text of " + message_id)
    terminal.send("m3", "held before")
    terminal.run(5)
    assert terminal.submitted == ["held before"]
    assert terminal.last("m4").step == "turn_ended"
