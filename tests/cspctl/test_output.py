"""What people see, as text."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspctl import output

pytestmark = pytest.mark.pure


@given(st.text(st.characters()))
def test_no_control_character_survives(text: str) -> None:
    shown = output.safe(text)
    assert not set(shown) & {chr(n) for n in [*range(32), *range(127, 160), 0x2028, 0x2029, 0x202E, 0x2066]}
    shown.encode()  # and no lone surrogate


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb", "a\\nb"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp", "abc\\u202egnp"),
        ("naïve → 日本\u3000ok", "naïve → 日本\u3000ok"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("\udc80", "\\udc80"),
    ],
)
def test_commands_are_shown_and_writing_is_kept(text: str, shown: str) -> None:
    assert output.safe(text) == shown


def test_a_table_is_aligned_by_columns_on_the_screen_and_not_by_characters() -> None:
    assert output.table(("A", "B"), [["日本", 1], ["x", None]]) == ["A     B", "日本  1", "x     -"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0 s"), (59.9, "59 s"), (65, "1 min 5 s"), (3600, "1 h"), (93784, "1 d 2 h")],
)
def test_a_duration_has_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert output.span(seconds) == text


def test_the_date_is_shown_only_for_another_day() -> None:
    noon = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))
    assert output.clock(noon, noon + 60) == "12:00:00"
    assert output.clock(noon, noon + 86400) == "2026-03-04 12:00:00"


def test_a_message_has_time_speaker_and_addressee_and_indented_lines(
    make_message: Callable[..., dict[str, Any]],
) -> None:
    message = make_message(content="one\ntwo\x1b[31m", to=["beta", "gamma"])
    shown = output.message_text(message, now=message["ts"])
    assert shown[8:] == " alpha → beta, gamma: one\n    two\\x1b[31m"


def test_a_persons_line_and_a_system_message_are_told_apart(
    make_message: Callable[..., dict[str, Any]],
) -> None:
    assert output.spoken(make_message(kind="input", **{"from": "human"})) == "human typed into beta: hello"
    assert output.spoken(make_message(kind="system")) == "-- hello"


def test_colours_are_only_added_when_they_are_asked_for(make_message: Callable[..., dict[str, Any]]) -> None:
    assert "\x1b" not in output.message_text(make_message())
    assert "\x1b[" in output.message_text(make_message(), colour=True)


def test_an_agents_status_says_state_activity_and_what_waits(
    make_agent: Callable[..., dict[str, Any]], make_message: Callable[..., dict[str, Any]]
) -> None:
    agent = make_agent(name="beta", paused=True, last_lines=["$ \x1b[31mls"], log=["started"])
    shown = "\n".join(output.agent_text(agent, [make_message()]))
    assert "● beta - bash -i" in shown
    assert "State: running, pid 123, for 1 min 5 s; restarts: 0" in shown
    assert "Activity: idle, paused (prompt at the cursor)" in shown
    assert "1 waiting, the first: held (busy)" in shown
    assert "| $ \\x1b[31mls" in shown
    assert "| started" in shown


def test_an_agent_that_is_not_running_shows_why(make_agent: Callable[..., dict[str, Any]]) -> None:
    agent = make_agent(state="failed", pid=None, uptime_sec=None, sidecar=None, reason="exited with status 1")
    shown = "\n".join(output.agent_text(agent, []))
    assert "State: failed (exited with status 1); restarts: 0" in shown
    assert "sidecar none" in shown


def test_the_overview_has_programs_rooms_and_agents(make_agent: Callable[..., dict[str, Any]]) -> None:
    status = {
        "cspd": {"pid": 1, "version": "0.1.0", "uptime_sec": 5.0},
        "keeper": {"pid": 2},
        "gateway": {"listen": None},
        "agents": [make_agent()],
        "rooms": [{"room": "lobby", "topic": "", "members": ["alpha"], "messages": 3}],
    }
    assert output.overview_text(status) == [
        "   cspd: pid 1, version 0.1.0, up 5 s",
        " keeper: pid 2",
        "gateway: off",
        "   room: lobby: alpha; messages 3",
        "",
        "● alpha  running  idle",
    ]


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (
            {
                "type": "delivery",
                "agent": "beta",
                "message_id": "0123456789",
                "step": "held",
                "reason": "busy",
            },
            "beta: held (busy) [01234567]",
        ),
        ({"type": "agent", "agent": "beta", "state": "running", "activity": "idle"}, "beta: running idle"),
        (
            {"type": "guard", "room": "lobby", "held": True, "why": "too much\x07"},
            "loop guard holds messages: too much\\x07: `cspctl resume --room lobby`",
        ),
        ({"type": "guard", "room": "lobby", "held": False, "why": "too much"}, "loop guard lets go on: too much"),
        (
            {"type": "room", "room": "lobby", "speaker": "beta", "round": 1, "rounds": 2},
            "turn of beta, round 1 of 2",
        ),
        (
            {"type": "room", "room": "lobby", "topic": "x"},
            'room: {"room": "lobby", "topic": "x"}',
        ),
    ],
)
def test_an_event_is_one_line(event: dict[str, Any], shown: str) -> None:
    assert output.event_text({"cursor": 1, "ts": time.time(), **event})[8:] == f"   {shown}"


def test_the_matching_rules_are_marked() -> None:
    rules = [
        {
            "rule": "prompt",
            "activity": "idle",
            "matched": True,
            "lines": ["$ "],
            "why": "prompt at the cursor",
        },
        {"rule": "yes-no", "activity": "dialog", "matched": False, "lines": [], "why": ""},
    ]
    known = {"activity": "idle", "reason": "prompt", "rules": rules}
    assert output.explained("alpha", known) == [
        "alpha: idle (prompt)",
        "  * prompt -> idle: prompt at the cursor",
        "      | $ ",
        "    yes-no -> dialog",
    ]


def test_long_text_is_cut_at_columns() -> None:
    assert output.shorten("short", 10) == "short"
    assert output.shorten("日本日本日本", 7) == "日本日…"
    assert output.shorten("one\ntwo", 10) == "one…"


def test_a_program_that_registered_has_no_command_and_perhaps_no_profile(
    make_agent: Callable[..., dict[str, Any]],
) -> None:
    lines = output.agent_text(make_agent(name="planner", command=[], profile="", guest=True), [])
    assert lines[0].endswith("planner")
    assert next(line for line in lines if "Room:" in line).endswith("; a guest: a program that registered")
