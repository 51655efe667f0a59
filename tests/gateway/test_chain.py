"""In whose turn an agent speaks, and the place of its message in the chain."""

import pytest

from cspd.gateway.chain import LATE_SEC, SILENT_SEC, TURNS_MAX, Cause, Chain, Turns, place

pytestmark = pytest.mark.pure


def cause(message_id: str, hops: int = 0) -> Cause:
    return Cause(message_id, Chain(message_id if not hops else "root", None if not hops else "before", hops))


def turns(*steps: tuple[Cause, str]) -> Turns:
    """What alice was given, at the times 0, 1, 2 and so on."""
    made = Turns()
    for ts, (about, step) in enumerate(steps):
        made.stepped("alice", about, step, ts)
    return made


A, B, C = cause("a"), cause("b", 3), cause("c", 5)


def test_an_answer_goes_on_with_the_chain_of_what_it_answers() -> None:
    assert place("new", "alice", B, None) == Chain("root", "b", 4)


def test_what_nobody_caused_begins_a_chain_and_counts_as_an_agents_message() -> None:
    assert place("new", "alice", None, None) == Chain("new", None, 1)


@pytest.mark.parametrize("sender", ["human", "system"])
def test_a_message_of_a_person_or_of_csp_begins_a_chain_whatever_it_replies_to(sender: str) -> None:
    assert place("new", sender, B, C) == Chain("new", None, 0)


def test_a_turn_counts_before_a_reply_because_the_caller_chooses_the_reply() -> None:
    assert place("new", "alice", C, A).hops == 6
    assert place("new", "alice", None, B) == Chain("root", "b", 4)


def test_the_chain_of_a_stored_message_is_read_back_as_it_was_written() -> None:
    chain = place("new", "alice", B, None)
    assert Chain.of("new", "alice", {"chain": chain.as_json()}) == chain


@pytest.mark.parametrize("meta", [{}, {"chain": ["a"]}, {"chain": {"root": 1, "cause": None, "hops": 1}}])
def test_a_stored_message_without_a_chain_of_ours_begins_one(meta: dict[str, object]) -> None:
    assert Chain.of("old", "alice", meta) == Chain("old", None, 1)


def test_a_person_has_no_chain_whatever_is_stored() -> None:
    assert Chain.of("m", "human", {"chain": {"root": "r", "cause": "c", "hops": 7}}) == Chain("m", None, 0)


@pytest.mark.parametrize("step", ["echoed", "submitted", "turn_started"])
def test_an_agent_speaks_of_the_message_whose_turn_is_open(step: str) -> None:
    assert turns((A, "typing"), (A, step)).speaks_of("alice", 1) == A


@pytest.mark.parametrize("step", ["held", "typing", "unknown", "refused", "expired"])
def test_a_message_that_was_not_submitted_leads_to_nothing(step: str) -> None:
    assert turns((A, "echoed"), (A, step)).speaks_of("alice", 1) is None


def test_of_several_open_turns_the_newest_counts() -> None:
    assert turns((A, "submitted"), (B, "submitted")).speaks_of("alice", 2) == B


def test_a_message_that_is_only_typed_does_not_take_over_a_turn_that_goes_on() -> None:
    told = turns((A, "turn_started"), (B, "echoed"))
    assert told.speaks_of("alice", 2) == A
    told.stepped("alice", B, "submitted", 3)
    assert told.speaks_of("alice", 4) == B


def test_messages_that_were_typed_as_one_turn_end_one_by_one() -> None:
    told = turns((A, "submitted"), (B, "submitted"), (A, "turn_started"), (B, "turn_started"), (A, "turn_ended"))
    assert told.speaks_of("alice", 5) == B
    told.stepped("alice", B, "turn_ended", 6)
    assert told.speaks_of("alice", 7) == B  # the last words


def test_the_end_of_a_turn_is_the_end_of_those_before_it() -> None:
    told = turns((A, "submitted"), (B, "submitted"), (B, "turn_ended"))
    assert told.speaks_of("alice", 3) == B


def test_last_words_come_a_little_after_the_end_and_later_ones_are_the_agents_own() -> None:
    told = turns((B, "submitted"), (B, "turn_ended"))
    assert told.speaks_of("alice", 1 + LATE_SEC) == B
    assert told.speaks_of("alice", 1.1 + LATE_SEC) is None


def test_a_turn_that_is_seen_to_go_on_counts_for_as_long_as_it_does() -> None:
    assert turns((B, "turn_started")).speaks_of("alice", 1e9) == B


def test_a_turn_that_shows_nothing_counts_for_some_minutes() -> None:
    told = turns((B, "submitted"))
    assert told.speaks_of("alice", SILENT_SEC) == B
    assert told.speaks_of("alice", SILENT_SEC + 1) is None


def test_a_line_that_a_person_typed_into_the_terminal_is_what_the_agent_is_about() -> None:
    told = turns((B, "turn_started"))
    told.typed("alice", "line", 1)
    assert told.speaks_of("alice", 2) == Cause("line", Chain("line", None, 0))
    told.stepped("alice", C, "submitted", 3)
    assert told.speaks_of("alice", 4) == C


def test_agents_have_turns_of_their_own_and_a_removed_one_has_none() -> None:
    told = turns((A, "submitted"))
    assert told.speaks_of("bob", 1) is None
    told.forget("alice")
    assert told.speaks_of("alice", 1) is None


def test_open_turns_are_bounded() -> None:
    told = turns(*((cause(f"m{n}"), "submitted") for n in range(TURNS_MAX * 3)))
    assert len(told._of["alice"]) == TURNS_MAX
