"""Turns of an agent CLI: when one ends and with which answer, and what messages do that come meanwhile."""

import attrs
import pytest
from sidecar.composer import TEXT, WHOLE, Composer
from sidecar.screens import profile_of

from cspd.profiles.profile import Profile
from cspd.sidecar.orders import HookHeard, PromptAccepted, TurnAnswered
from cspd.sidecar.turns import ANSWER_SEC, UNSEEN_SEC

pytestmark = pytest.mark.pure


def with_typing(**changes: object) -> Profile:
    profile = profile_of("claude")
    return attrs.evolve(profile, typing=attrs.evolve(profile.typing, **changes))  # type: ignore[arg-type]


def accept(cli: Composer) -> None:
    """Its hooks are wired: it says which prompt it took."""
    cli.give(HookHeard(cli.now))
    cli.send()
    cli.run(0.3)
    cli.give(PromptAccepted(cli.now, TEXT))


def test_the_end_of_a_turn_waits_for_the_answer_that_the_agents_hook_tells() -> None:
    cli = Composer()
    accept(cli)
    cli.run(1.5)
    assert cli.steps()[-1] == "turn_started"
    cli.give(TurnAnswered(cli.now, "it is done"))
    cli.run(0.1)
    assert cli.steps() == WHOLE
    assert cli.reports[-1].answer == "it is done"


def test_a_hook_that_was_heard_at_the_start_says_that_an_answer_comes_also_when_that_of_the_prompt_is_lost() -> None:
    cli = Composer()
    cli.give(HookHeard(cli.now))
    cli.send()
    cli.run(2.5)
    assert cli.steps()[-1] == "turn_started"
    cli.give(TurnAnswered(cli.now, "it is done"))
    cli.run(0.1)
    assert (cli.reports[-1].step, cli.reports[-1].answer) == ("turn_ended", "it is done")


def test_an_answer_that_comes_while_it_still_looks_busy_is_kept_for_the_end() -> None:
    cli = Composer(turn_sec=1.0)
    accept(cli)
    cli.give(TurnAnswered(cli.now, "it is done"))
    cli.run(0.2)
    assert cli.steps()[-1] == "turn_started"
    cli.run(3)
    assert (cli.reports[-1].step, cli.reports[-1].answer) == ("turn_ended", "it is done")


def test_a_turn_without_an_answer_ends_all_the_same_and_takes_none_of_another_turn() -> None:
    cli = Composer()
    accept(cli)
    cli.give(TurnAnswered(cli.now, "the first"))
    cli.run(2)
    cli.send("m2", "[Context: gemini sent a message]\nanother")
    cli.run(1)
    assert cli.steps("m2")[-1] == "turn_started"
    cli.run(ANSWER_SEC + 1)
    assert (cli.steps("m2")[-1], cli.reports[-1].answer) == ("turn_ended", "")


def test_where_no_hook_was_ever_heard_no_answer_is_waited_for() -> None:
    cli = Composer()
    cli.send()
    cli.run(1.5)
    assert cli.steps() == WHOLE


def test_a_turn_that_begins_late_has_not_ended_before() -> None:
    cli = Composer(begins_sec=1.0, turn_sec=3.0)
    cli.send()
    cli.run(3.5)
    assert cli.steps()[-1] == "turn_started"
    cli.run(1.5)
    assert cli.steps() == WHOLE


def test_the_first_hook_of_all_may_come_when_nothing_else_tells_that_it_works() -> None:
    cli = Composer(turn_sec=0)
    cli.send()
    cli.run(UNSEEN_SEC - 0.2)
    cli.give(HookHeard(cli.now))
    cli.give(PromptAccepted(cli.now, TEXT))
    cli.run(UNSEEN_SEC + 1)
    assert "turn_ended" not in cli.steps()
    cli.give(TurnAnswered(cli.now, "it is done"))
    cli.run(0.1)
    assert (cli.steps()[-1], cli.reports[-1].answer) == ("turn_ended", "it is done")


def test_a_turn_that_nothing_ever_shows_is_not_waited_for_longer_than_a_cli_may_need_to_begin() -> None:
    cli = Composer(turn_sec=0)
    cli.send()
    cli.run(UNSEEN_SEC + 1)
    assert cli.steps()[-1] == "turn_ended"


def test_a_cli_that_draws_something_all_the_time_and_shows_nothing_else_has_an_end_of_its_turn() -> None:
    cli = Composer(turn_sec=0)
    cli.send()
    for _ in range(12):
        cli.run(0.5)
        cli.output_at = cli.now  # a clock, for one
    assert cli.steps()[-1] == "turn_ended"


def test_nor_is_it_waited_for_after_the_person_has_ended_the_turn() -> None:
    cli = Composer(turn_sec=30.0)
    accept(cli)
    cli.type(b"\x1b")
    cli.run(2.5)
    assert cli.steps() == WHOLE


def test_an_urgent_message_does_not_wait_for_the_answer_of_the_turn_that_it_ended() -> None:
    cli = Composer(turn_sec=30.0)
    accept(cli)
    cli.send("m2", "[Context: gemini sent a message]\nnow", urgent=True)
    cli.run(1.5)
    assert cli.submitted[-1].endswith("now")


def test_while_busy_a_message_waits_for_the_turn_to_end() -> None:
    cli = Composer(turn_sec=3.0)
    cli.send("m1")
    cli.send("m2", "second message of the test")
    cli.run(2.5)
    assert cli.steps("m2") == ["held(busy)"]
    cli.run(3)
    assert cli.submitted == [TEXT, "second message of the test"]


def test_an_urgent_message_ends_the_turn_with_the_key_that_the_profile_names_and_only_once() -> None:
    cli = Composer(turn_sec=30.0)
    cli.send("m1")
    cli.run(2)
    cli.send("m2", "the house is on fire", urgent=True)
    cli.run(3)
    assert [data for _, data in cli.keys].count(b"\x1b") == 1
    assert cli.submitted == [TEXT, "the house is on fire"]
    cli.send("m3", "and so is the garage", urgent=True)
    cli.run(3)
    assert cli.steps("m3") == ["held(busy)"]  # it would end a turn that is urgent itself


def test_without_such_a_key_an_urgent_message_waits_like_others_but_comes_first() -> None:
    cli = Composer(profile=with_typing(interrupt_key=""), turn_sec=2.0)
    cli.send("m1")
    cli.run(1)
    cli.send("m2", "plain message of the test")
    cli.send("m3", "urgent message of the test", urgent=True)
    cli.run(8)
    assert cli.submitted == [TEXT, "urgent message of the test", "plain message of the test"]


def test_messages_that_wait_become_one_turn_where_the_profile_says_so() -> None:
    cli = Composer(profile=with_typing(batch_messages=3), turn_sec=1.0)
    cli.send("m0")
    texts = [f"[Context: a sent a message]\nnumber {n} of the waiting ones" for n in range(4)]
    for n, text in enumerate(texts):
        cli.send(f"w{n}", text)
    cli.run(8)
    assert cli.submitted == [TEXT, "\n\n".join(texts[:3]), texts[3]]
    for n in range(3):
        assert cli.steps(f"w{n}")[1:] == WHOLE


def test_a_program_with_a_key_to_queue_gets_that_key_while_busy_and_enter_otherwise() -> None:
    cli = Composer(profile=with_typing(when_busy="queue", queue_key="\t"), turn_sec=30.0)
    cli.send("m1")
    cli.run(1)
    cli.send("m2", "queued message of the test")
    cli.run(1)
    assert [data for _, data in cli.keys if len(data) == 1] == [b"\r", b"\t"]
