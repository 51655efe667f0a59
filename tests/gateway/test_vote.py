"""Votes: what a ballot means, who may cast one, what comes out."""

import json

import pytest

from cspd.errors import CspError
from cspd.gateway.vote import CHOICE_MAX, CHOICES_MAX, Vote

pytestmark = pytest.mark.pure


def vote(*voters: str) -> Vote:
    return Vote.opened("Which one?", ("Tabs", "Spaces  please", "42"), voters or ("ann", "bob", "cid"), 10.0)


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("Tabs", "Tabs"),
        (" tabs\n", "Tabs"),
        ("1", "Tabs"),
        ("spaces please", "Spaces please"),
        ("42", "42"),
        ("3", "42"),
    ],
)
def test_a_ballot_is_a_choice_in_any_case_or_its_number(said: str, choice: str) -> None:
    assert vote().choice("ann", said) == choice


@pytest.mark.parametrize("said", ["Tab", "4", "0", "", "-1", "²", "I am for tabs"])
def test_a_ballot_that_names_no_choice_is_refused(said: str) -> None:
    with pytest.raises(CspError) as raised:
        vote().choice("ann", said)
    assert raised.value.code == "no-such-choice"


def test_only_who_was_there_may_vote_and_the_person() -> None:
    assert vote().choice("human", "1") == "Tabs"
    with pytest.raises(CspError) as raised:
        vote().choice("zed", "1")
    assert raised.value.code == "not-a-voter"


def test_the_last_ballot_of_a_voter_counts() -> None:
    told = vote()
    for voter, choice in (("ann", "Tabs"), ("bob", "42"), ("ann", "42")):
        told.cast(voter, choice)
    assert told.counts() == {"42": ["ann", "bob"], "Tabs": [], "Spaces please": []}
    assert (told.winners(), told.missing) == (["42"], ["cid"])


def test_equal_counts_are_a_tie_and_no_ballots_no_result() -> None:
    told = vote()
    assert told.winners() == []
    told.cast("ann", "Tabs")
    told.cast("human", "42")
    assert told.winners() == ["Tabs", "42"]


def test_nobody_waits_for_a_member_that_left_but_its_ballot_counts() -> None:
    told = vote()
    told.cast("ann", "Tabs")
    told.without("ann")
    told.without("bob")
    assert (told.missing, told.winners()) == (["cid"], ["Tabs"])


@pytest.mark.parametrize(
    ("question", "choices"),
    [
        ("?", ("A",)),
        ("?", tuple(map(str, range(CHOICES_MAX + 1)))),
        (" ", ("A", "B")),
        ("?", ("A", "a ")),
        ("?", ("A", " ")),
        ("?", ("A", "B" * (CHOICE_MAX + 1))),
        ("?" * 5000, ("A", "B")),
    ],
)
def test_a_vote_that_cannot_be_decided_is_not_opened(question: str, choices: tuple[str, ...]) -> None:
    with pytest.raises(CspError) as raised:
        Vote.opened(question, choices, ("ann",), 10.0)
    assert raised.value.code == "invalid-params"


def test_a_vote_survives_as_json() -> None:
    told = vote()
    told.cast("ann", "Tabs")
    assert Vote.from_json(json.loads(json.dumps(told.as_json()))) == told
