"""The loop guard: agents that answer each other come to rest in any topology; what stays below the limits passes."""

from collections import Counter, deque
from collections.abc import Callable

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cspd.gateway.chain import Chain
from cspd.gateway.loopguard import (
    MINUTE_SEC,
    REPEATS,
    Limits,
    LoopGuard,
    Stop,
    Utterance,
    digest_of,
)

pytestmark = pytest.mark.pure

NAMES = ("ann", "bob", "cid", "dan", "eve")
LIMITS = Limits(max_hops=6, max_messages=30, pair_per_min=8, agent_per_min=10, room_per_min=24)


def said(sender: str, *to: str, hops: int = 2, root: str = "r", text: str = "", ts: float = 0.0) -> Utterance:
    return Utterance(sender, to, "lobby", Chain(root, "before", hops), digest_of(text or f"{ts} {hops}"), ts)


def kinds(guard: LoopGuard) -> set[str]:
    return {stop.kind for stop in guard.stops.values()}


# ---------------------------------------------------------------------- each limit


def test_a_chain_is_held_when_it_is_longer_than_allowed_and_not_before() -> None:
    guard = LoopGuard(LIMITS)
    for hops in range(1, 7):
        assert not guard.judge(said("ann", "bob", hops=hops)).held
    verdict = guard.judge(said("ann", "bob", hops=7))
    assert verdict.held == {"bob"}
    assert [(stop.kind, stop.key, stop.names) for stop in verdict.stops] == [("chain", ("r",), ("ann", "bob"))]


def test_a_held_chain_holds_its_other_branches_but_nobodys_answer_to_the_person() -> None:
    guard = LoopGuard(LIMITS)
    guard.judge(said("ann", "bob", hops=7))
    assert guard.judge(said("cid", "dan", hops=2)).held == {"dan"}
    assert not guard.judge(said("eve", "dan", hops=1)).held
    assert not guard.judge(said("cid", "dan", hops=2, root="another")).held


def test_a_pair_is_counted_both_ways_and_held_alone() -> None:
    guard = LoopGuard(LIMITS)
    for n in range(8):
        assert not guard.judge(said(*(("ann", "bob"), ("bob", "ann"))[n % 2], ts=n / 10, root=f"{n}")).held
    verdict = guard.judge(said("ann", "bob", "cid", ts=1))
    assert verdict.held == {"bob"}
    assert kinds(guard) == {"pair"}
    assert guard.judge(said("bob", "ann", ts=1.1)).held == {"ann"}
    assert not guard.judge(said("bob", "cid", ts=1.2)).held


def test_an_agent_is_counted_by_messages_not_by_their_recipients() -> None:
    guard = LoopGuard(attrs.evolve(LIMITS, pair_per_min=100))
    for n in range(10):
        assert not guard.judge(said("ann", "bob", "cid", "dan", ts=n / 10, root=f"{n}")).held
    assert guard.judge(said("ann", "eve", ts=1)).held == {"eve"}
    assert kinds(guard) == {"agent"}
    assert not guard.judge(said("bob", "eve", ts=1)).held


def test_in_a_full_room_only_those_are_held_who_filled_it() -> None:
    guard = LoopGuard(attrs.evolve(LIMITS, pair_per_min=100, agent_per_min=100))
    for n in range(24):
        assert not guard.judge(said(("ann", "bob")[n % 2], "cid", ts=n / 10, root=f"{n}")).held
    assert guard.judge(said("ann", "cid", ts=3)).held == {"cid"}
    assert not guard.judge(said("eve", "cid", ts=3)).held
    assert [stop.key for stop in guard.stops.values()] == [("lobby", "ann")]


def test_a_text_that_is_said_again_and_again_is_held_and_other_texts_are_not() -> None:
    guard = LoopGuard(LIMITS)
    for n in range(REPEATS):
        assert not guard.judge(said("ann", "bob", text="Ok,  DONE", ts=n)).held
    assert guard.judge(said("ann", "bob", text="ok, done ", ts=3)).held == {"bob"}
    assert not guard.judge(said("ann", "bob", text="something else", ts=4)).held
    assert not guard.judge(said("ann", "cid", text="ok, done", ts=5)).held
    assert kinds(guard) == {"repeat"}


def test_an_answer_to_a_person_may_be_the_same_every_time() -> None:
    guard = LoopGuard(LIMITS)
    for n in range(REPEATS * 2):
        assert not guard.judge(said("ann", "bob", text="ok", hops=1, root=f"{n}", ts=n)).held


def test_a_minute_later_nothing_of_it_counts() -> None:
    guard = LoopGuard(LIMITS)
    for n in range(8):
        guard.judge(said("ann", "bob", ts=0.0, root=f"{n}"))
    assert not guard.judge(said("ann", "bob", ts=MINUTE_SEC)).held


def test_all_branches_of_a_chain_together_are_limited_too() -> None:
    guard = LoopGuard(attrs.evolve(LIMITS, max_messages=3))
    assert not guard.judge(said("ann", "bob", "cid", "dan", hops=1)).held
    for n, sender in enumerate(("bob", "cid", "dan")):
        assert not guard.judge(said(sender, "ann", ts=n * 100)).held
    assert guard.judge(said("bob", "cid", ts=400)).held == {"cid"}
    assert not guard.judge(said("eve", "ann", hops=1, ts=400)).held
    guard.release(lambda stop: True)
    assert not guard.judge(said("bob", "cid", ts=401)).held


def test_what_is_held_is_not_counted() -> None:
    guard = LoopGuard(LIMITS)
    for n in range(50):
        guard.judge(said("ann", "bob", ts=n / 100, root=f"{n}"))
    assert guard._recent["agent", ("ann",)].count(1.0) == 8


def test_a_stop_is_told_once_and_again_when_it_holds_more_agents() -> None:
    guard = LoopGuard(LIMITS)
    assert guard.judge(said("ann", "bob", hops=7)).stops
    assert not guard.judge(said("ann", "bob", hops=7)).stops
    (stop,) = guard.judge(said("cid", "bob", hops=7)).stops
    assert stop.names == ("ann", "bob", "cid")


# ---------------------------------------------------------------------- letting go


def test_a_released_chain_gets_the_allowance_once_more() -> None:
    guard = LoopGuard(LIMITS)
    held = said("ann", "bob", hops=7)
    guard.judge(held)
    assert guard.stopped(held, "bob")
    assert [stop.kind for stop in guard.release(lambda stop: True)] == ["chain"]
    assert not guard.stopped(held, "bob")
    for hops in range(8, 13):
        assert not guard.judge(said("ann", "bob", hops=hops)).held
    assert guard.judge(said("ann", "bob", hops=13)).held
    guard.release(lambda stop: True)
    assert guard.allowed == {"r": 18}


def test_a_released_pair_begins_to_count_anew_and_others_stay_held() -> None:
    guard = LoopGuard(LIMITS)
    for sender, to in (("ann", "bob"), ("cid", "dan")):
        for n in range(9):
            guard.judge(said(sender, to, ts=n / 10, root=f"{n}"))
    guard.release(lambda stop: "ann" in stop.names)
    for n in range(8):
        assert not guard.judge(said("ann", "bob", ts=2 + n / 10, root=f"{n}")).held
    assert guard.judge(said("ann", "bob", ts=3)).held
    assert guard.judge(said("cid", "dan", ts=3)).held


def test_what_is_stopped_and_allowed_survives_as_json() -> None:
    guard = LoopGuard(LIMITS)
    guard.judge(said("ann", "bob", hops=7))
    guard.release(lambda stop: True)
    guard.judge(said("ann", "bob", hops=20))
    again = LoopGuard(LIMITS)
    again.restore(guard.as_json())
    assert (again.stops, again.allowed) == (guard.stops, guard.allowed)
    assert all(isinstance(stop, Stop) for stop in again.stops.values())


# ---------------------------------------------------------------------- any topology

Answer = Callable[[str, str], tuple[str, ...]]  # (who answers, to whose message) -> whom the answer goes to


def pairs(name: str, sender: str) -> tuple[str, ...]:
    return (sender,)


def ring(name: str, sender: str) -> tuple[str, ...]:
    return (NAMES[(NAMES.index(name) + 1) % len(NAMES)],)


def everybody(name: str, sender: str) -> tuple[str, ...]:
    return tuple(each for each in NAMES if each != name)


def chatter(guard: LoopGuard, answer: Answer, begin: list[tuple[str, str, float]], gap: float) -> Counter[str]:
    """Agents that answer each message with a message, `gap` apart, from these on: how many each of them sent.

    Ends when nothing is under way, and fails when that does not come.
    """
    passed: Counter[str] = Counter()
    todo = deque((sender, answer(sender, other), 1, f"root {n}", ts) for n, (sender, other, ts) in enumerate(begin))
    for step in range(5000):
        if not todo:
            return passed
        sender, to, hops, root, ts = todo.popleft()
        verdict = guard.judge(said(sender, *to, hops=hops, root=root, text=f"{step}", ts=ts))
        going = [name for name in to if name not in verdict.held]
        passed[sender] += bool(going)
        todo.extend((name, answer(name, sender), hops + 1, root, ts + gap) for name in going)
    pytest.fail(f"they still talk after {passed.total()} messages")


TOPOLOGIES = st.one_of(
    st.sampled_from([pairs, ring, everybody]),
    # anybody to any others, each time the same ones
    st.dictionaries(
        st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES), min_size=1), min_size=len(NAMES), max_size=len(NAMES)
    ).map(lambda graph: lambda name, sender: tuple(sorted(graph[name] - {name}) or (NAMES[name == NAMES[0]],))),
)


@given(
    answer=TOPOLOGIES,
    starters=st.lists(st.permutations(NAMES).map(lambda two: (two[0], two[1], 0.0)), min_size=1, max_size=3),
    gap=st.sampled_from([0.0, 0.001, 0.5, 5.0, 30.0]),
)
@settings(max_examples=150, deadline=None)
def test_agents_that_answer_every_message_come_to_rest_in_any_topology(
    answer: Answer, starters: list[tuple[str, str, float]], gap: float
) -> None:
    guard = LoopGuard(LIMITS)
    passed = chatter(guard, answer, starters, gap)
    assert guard.stops
    direct = len(starters)
    assert passed.total() <= direct + LIMITS.max_messages * direct
    if gap == 0.0:
        assert all(count <= LIMITS.agent_per_min for count in passed.values())


@pytest.mark.parametrize("answer", [pairs, ring])
@pytest.mark.parametrize("gap", [0.0, 10.0])
def test_a_single_thread_of_answers_stops_at_the_chain_limit_exactly(answer: Answer, gap: float) -> None:
    assert chatter(LoopGuard(LIMITS), answer, [("ann", "bob", 0.0)], gap).total() == LIMITS.max_hops


def test_agents_whose_messages_have_no_known_cause_are_stopped_by_their_rate() -> None:
    guard = LoopGuard(LIMITS)
    passed = sum(not guard.judge(said("ann", "bob", hops=1, root=f"{n}", ts=n / 10)).held for n in range(500))
    assert passed == LIMITS.pair_per_min


@given(
    talk=st.lists(
        st.tuples(st.permutations(NAMES), st.integers(1, LIMITS.max_hops), st.floats(0.0, 20.0)),
        max_size=60,
    )
)
@settings(max_examples=100, deadline=None)
def test_a_lively_conversation_below_the_limits_is_never_touched(
    talk: list[tuple[list[str], int, float]],
) -> None:
    """Whatever of the talk would exceed a limit is left out here by an independent count; the rest passes."""
    guard, now, log = LoopGuard(LIMITS), 0.0, list[tuple[float, str, frozenset[str]]]()
    for n, ((sender, other, *_), hops, pause) in enumerate(talk):
        now += pause
        recent = [entry for entry in log if entry[0] > now - MINUTE_SEC]
        below = (
            len(recent) < LIMITS.room_per_min
            and sum(entry[1] == sender for entry in recent) < LIMITS.agent_per_min
            and sum(entry[2] == {sender, other} for entry in recent) < LIMITS.pair_per_min
        )
        if below:
            assert not guard.judge(said(sender, other, hops=hops, root=f"{n}", text=f"{n}", ts=now)).held
            log.append((now, sender, frozenset({sender, other})))
    assert not guard.stops


def test_two_that_storm_do_not_silence_a_third() -> None:
    guard = LoopGuard(Limits())
    for n in range(300):
        guard.judge(said(*(("ann", "bob"), ("bob", "ann"))[n % 2], ts=n / 100, root=f"{n}"))
    assert not guard.judge(said("cid", "ann", ts=3)).held
    assert not guard.judge(said("ann", "cid", ts=3)).held
