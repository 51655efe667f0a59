"""Turns in a room: order and rounds, warning and timeout, work that extends it, members who leave."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.gateway.floor import SETTLE_SEC, Called, Command, Floor, Over, Skipped, Warned

pytestmark = pytest.mark.pure


def floor(*order: str, rounds: int = 1, at: float = 0.0) -> Floor:
    made = Floor(order or ("ann", "bob", "cid"), rounds, "human", turn_sec=90.0)
    assert made.advance(at) == [Called(made.order[0])]
    return made


def test_members_speak_in_order_for_so_many_rounds() -> None:
    told = floor(rounds=2)
    called = [told.advance(0.0) for _ in range(5)]
    assert called == [[Called(name)] for name in ("bob", "cid", "ann", "bob", "cid")]
    assert told.advance(0.0) == [Over()]


def test_only_the_speaker_and_the_chair_may_speak() -> None:
    told = Floor(("ann", "bob"), 1, "dan")
    told.advance(0.0)
    assert [name for name in ("ann", "bob", "cid", "dan") if told.may_speak(name)] == ["ann", "dan"]


def test_a_turn_is_over_when_the_speaker_has_spoken_and_its_program_rests() -> None:
    told = floor()
    told.called("cue", early=False)
    assert told.turn_ended("ann", "cue", 1.0) == []  # it has said nothing yet
    told.heard("ann", 2.0, "cue")
    assert told.turn_ended("bob", "cue", 3.0) == []
    assert told.turn_ended("ann", "cue", 3.0) == [Called("bob")]


def test_what_a_speaker_says_of_something_else_before_it_knows_that_it_is_its_turn_is_no_answer() -> None:
    told = floor()
    told.called("cue", early=False)
    told.heard("ann", 1.0, "what bob said")
    assert told.turn_ended("ann", "what bob said", 1.5) == []
    assert told.tick(1.0 + SETTLE_SEC, working=False) == []
    told.heard("ann", 3.0, "cue")
    assert told.turn_ended("ann", "cue", 4.0) == [Called("bob")]


def test_a_speaker_may_be_content_with_what_it_had_said_before_its_turn() -> None:
    told = floor()
    told.called("cue", early=True)
    assert told.turn_ended("ann", "the message that it answered early", 1.0) == []
    assert told.turn_ended("ann", "cue", 2.0) == [Called("bob")]
    told.called("next cue", early=False)
    assert told.turn_ended("bob", "next cue", 3.0) == []


def test_where_no_end_is_seen_a_turn_is_over_a_little_after_the_answer() -> None:
    told = floor()
    told.heard("ann", 2.0)
    assert told.tick(2.0 + SETTLE_SEC - 0.1, working=False) == []
    assert told.tick(2.0 + SETTLE_SEC, working=True) == []
    assert told.tick(2.0 + 2 * SETTLE_SEC, working=False) == [Called("bob")]


def test_what_another_one_says_changes_nothing() -> None:
    told = floor()
    told.heard("bob", 2.0)
    assert (told.spoken, told.due_ts) == (False, 60.0)


def test_a_silent_speaker_is_warned_and_then_skipped() -> None:
    told = floor()
    assert told.tick(59.9, working=False) == []
    assert told.tick(60.0, working=False) == [Warned("ann", pytest.approx(30.0))]
    assert told.tick(89.9, working=False) == []
    assert told.tick(90.0, working=False) == [Skipped("ann"), Called("bob")]
    assert told.due_ts == 150.0


def test_a_speaker_that_works_has_all_the_time_it_needs() -> None:
    told, now = floor(), 60.0
    for _ in range(20):
        assert told.tick(now, working=True) == []
        now = told.due_ts
    assert told.tick(now, working=False) == [Warned("ann", pytest.approx(30.0))]


@pytest.mark.parametrize(
    ("leaves", "called", "speaker"),
    [("ann", [], "bob"), ("bob", [Called("cid")], "cid"), ("cid", [], "bob"), ("zed", [], "bob")],
)
def test_the_turns_go_on_without_a_member_that_leaves(leaves: str, called: list[Command], speaker: str) -> None:
    told = floor()
    told.advance(0.0)
    assert told.without(leaves, 1.0) == called
    assert told.speaker == speaker
    assert leaves not in told.order


def test_without_members_it_is_over() -> None:
    told = floor("ann", rounds=5)
    assert told.without("ann", 1.0) == [Over()]


def test_a_floor_survives_as_json() -> None:
    told = floor(rounds=3)
    told.heard("ann", 2.0)
    assert Floor.from_json(json.loads(json.dumps(told.as_json()))) == told


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["heard", "ended", "tick", "busy", "next", "leave"]), st.integers(0, 3), st.floats(0, 200)
    ),
    max_size=60,
)


@given(events=EVENTS)
def test_every_debate_comes_to_its_end_and_calls_nobody_more_often_than_it_has_rounds(
    events: list[tuple[str, int, float]],
) -> None:
    names, told, now = ("a", "b", "c", "d"), Floor(("a", "b", "c", "d"), 2, "human"), 0.0
    commands = told.advance(now)
    for what, who, pause in [*events, *[("tick", 0, 1000.0)] * 30]:
        if Over() in commands:
            break
        now += pause
        match what:
            case "heard":
                told.heard(names[who], now)
            case "ended":
                commands += told.turn_ended(names[who], "cue", now)
            case "tick" | "busy":
                commands += told.tick(now, what == "busy")
            case "next":
                commands += told.advance(now)
            case "leave":
                commands += told.without(names[who], now)
    assert commands[-1] == Over()
    assert all(commands.count(Called(name)) <= 2 for name in names)
