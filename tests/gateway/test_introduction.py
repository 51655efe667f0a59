"""What an agent is told about its room."""

import re

import pytest

from cspd.gateway.introduction import How, introduction, membership_changed

pytestmark = pytest.mark.pure

MEMBERS = ["gemini", "claude", "codex"]
EVERY_WAY = How(tool=True, command=True, keyword="@{name}:")


def test_it_names_the_agent_the_room_the_others_and_the_person() -> None:
    text = introduction("claude", "lobby", MEMBERS, How())
    assert "You are claude" in text
    assert "room lobby" in text
    assert "codex, gemini." in text
    assert "human" in text


def test_it_tells_only_the_ways_that_the_agent_has() -> None:
    ways = {
        "send_message": How(tool=True, command=False),
        "cspctl send": How(),
        "@codex:": How(False, False, "@{name}:"),
    }
    for word, how in ways.items():
        text = introduction("claude", "lobby", MEMBERS, how)
        assert [other for other in ways if other in text] == [word]
    assert "To say something" not in introduction("claude", "lobby", MEMBERS, How(command=False))


def test_it_is_short() -> None:
    assert len(introduction("claude", "lobby", MEMBERS, EVERY_WAY)) < 1000


def test_nobody_is_addressed_when_it_is_repeated_and_no_shell_would_run_a_part_of_it() -> None:
    text = introduction("claude", "lobby", MEMBERS, EVERY_WAY)
    assert not re.search(r"[`$!']", text)
    assert not re.search(r"^\s*@", text, flags=re.MULTILINE)


def test_an_agent_that_is_alone_is_told_so_and_how_to_reach_the_person() -> None:
    text = introduction("claude", "lobby", ["claude"], EVERY_WAY)
    assert "No other agent" in text
    assert "@human:" in text


def test_a_change_of_the_room_is_one_sentence_and_no_change_is_none() -> None:
    assert membership_changed("lobby", ["a", "b"], ["a", "b"], "a") == ""
    assert membership_changed("lobby", ["b"], ["a", "b"], "a") == ""
    text = membership_changed("lobby", ["a", "b"], ["a", "c", "d"], "a")
    assert text.startswith("Room lobby: c and d have come and b has left.")
