"""Terminals that show each other: the way from one back to another, however long."""

import pytest

from cspd.gateway.link import way_round

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("shown_in", "way"),
    [
        ({}, []),
        ({"b": ["a"]}, ["b", "a"]),
        ({"b": ["c"], "c": ["d", "a"]}, ["b", "c", "a"]),
        ({"b": ["c"], "c": ["b"]}, []),
        ({"a": ["b"], "b": ["c"]}, []),
    ],
)
def test_the_way_leads_from_the_terminal_that_asks_to_the_one_that_it_wants(
    shown_in: dict[str, list[str]], way: list[str]
) -> None:
    assert way_round(shown_in, "a", "b") == way
