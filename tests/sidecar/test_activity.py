"""What the default and shell profiles make of screens of well-known programs."""

import importlib.resources
from typing import Any

import pytest

from cspd.profiles.read import read_profile
from cspd.sidecar.activity import Activity, Decision, decide
from cspd.sidecar.view import View

pytestmark = pytest.mark.pure

TEXTS = {
    path.name.removesuffix(".toml"): path.read_text()
    for path in importlib.resources.files("cspd.profiles").iterdir()
    if path.name.endswith(".toml")
}
DEFAULT = read_profile("default", TEXTS)
SHELL = read_profile("shell", TEXTS)


def view(*rows: str, cursor: tuple[int, int] | None = None, **facts: Any) -> View:
    """A screen of 24 rows; the cursor stands behind the last text unless told otherwise."""
    place = cursor or (max(len(rows) - 1, 0), len(rows[-1]) if rows else 0)
    shown = [row.rstrip() for row in rows] + [""] * (24 - len(rows))
    return View(rows=tuple(shown), cursor=place, wrapped=(False,) * 24, **facts)


def raw(*rows: str, cursor: tuple[int, int] | None = None, **facts: Any) -> View:
    return view(*rows, cursor=cursor, **{"canonical": False, "echo": False, **facts})


CLAUDE = ["─" * 40, "❯", "─" * 40, "  ? for shortcuts"]
SCREENS: dict[str, tuple[View, float, Activity]] = {
    "bash": (raw("root@host:/# ", bracketed_paste=True), 0.2, Activity.IDLE),
    "bash with a draft": (raw("root@host:/# git sta", bracketed_paste=True), 0.8, Activity.IDLE),
    "dash": (view("$ ", reading=True), 0.2, Activity.IDLE),
    "zsh with a percent sign": (raw("host% ", bracketed_paste=True), 0.2, Activity.IDLE),
    "python": (raw("Python 3.11.2", ">>> "), 0.2, Activity.IDLE),
    "python in a block": (raw(">>> def f():", "... "), 0.2, Activity.IDLE),
    "cat before any output": (view(reading=True), 0.8, Activity.IDLE),
    "cat where the kernel does not tell": (view(), 0.8, Activity.IDLE),
    "a console that asks a name": (view("Name: ", reading=True), 0.8, Activity.IDLE),
    "claude": (raw(*CLAUDE, cursor=(3, 0), bracketed_paste=True, alternate=True), 0.8, Activity.IDLE),
    "codex": (raw("hello", "", "› Ask Codex to do anything", bracketed_paste=True), 0.8, Activity.IDLE),
    "gemini": (raw("▄" * 40, " > Type your message", "▀" * 40, "~/src", bracketed_paste=True), 0.8, Activity.IDLE),
    "a sleeping script": (view("working", reading=False), 9.0, Activity.UNKNOWN),
    "a progress line": (view("loading 50%", reading=False), 0.3, Activity.BUSY),
    "a shell's job": (view("$ sleep 9", "", foreground=False), 9.0, Activity.BUSY),
    "claude works": (raw("✶ Unfurling… (esc to interrupt)", *CLAUDE, bracketed_paste=True), 9.0, Activity.BUSY),
    "a spinner in the title": (raw(*CLAUDE, title="⠋ fix the test", bracketed_paste=True), 9.0, Activity.BUSY),
    "vim": (
        raw("> quoted", "$ ", "~", "~", cursor=(1, 2), alternate=True, bracketed_paste=True),
        9.0,
        Activity.UNKNOWN,
    ),
    "claude asks": (
        raw("Do you want to proceed?", "❯ 1. Yes", "  2. No", "Esc to cancel", bracketed_paste=True),
        0.0,
        Activity.DIALOG,
    ),
    "codex asks": (raw("› 1. Yes, proceed (y)", "  2. No (esc)", bracketed_paste=True), 0.0, Activity.DIALOG),
    "gemini asks": (raw("│ ● 1. Allow once │", "│   2. No │", bracketed_paste=True), 0.0, Activity.DIALOG),
    "apt asks": (view("Do you want to continue? [Y/n] ", foreground=False), 0.0, Activity.DIALOG),
    "ssh asks": (view("continue connecting (yes/no/[fingerprint])? "), 0.0, Activity.DIALOG),
    "sudo asks": (view("Password: ", echo=False), 0.0, Activity.DIALOG),
    "a pager": (raw("text", "--More--(12%)"), 3.0, Activity.DIALOG),
}


@pytest.mark.parametrize("name", SCREENS)
def test_the_default_profile_knows_this_screen(name: str) -> None:
    shown, silent_sec, expected = SCREENS[name]
    decision = decide(DEFAULT, shown, silent_sec, 30.0)
    assert decision.activity is expected, decision.reason


@pytest.mark.parametrize("name", ["bash", "bash with a draft", "dash", "a shell's job", "sudo asks", "apt asks"])
def test_the_shell_profile_agrees_about_shells(name: str) -> None:
    shown, silent_sec, expected = SCREENS[name]
    assert decide(SHELL, shown, silent_sec, 30.0).activity is expected


def test_the_shell_profile_concludes_nothing_from_what_a_command_printed() -> None:
    shown = raw("❯ 1. Yes", "  2. No", "press esc to interrupt", "$ ", bracketed_paste=True)
    assert decide(SHELL, shown, 1.0, 30.0).activity is Activity.IDLE
    assert decide(DEFAULT, shown, 1.0, 30.0).activity is Activity.DIALOG


def test_an_agent_that_has_shown_nothing_is_starting_and_looked_at_again() -> None:
    decision = decide(DEFAULT, view(reading=False), 3.0, 3.0)
    assert (decision.activity, decision.look_again_in, decision.poll_in) == (Activity.STARTING, 7.0, 1.0)
    assert decide(DEFAULT, view(reading=False), 11.0, 11.0).activity is Activity.UNKNOWN


def test_an_agent_that_has_not_taken_its_terminal_yet_is_starting_not_busy() -> None:
    assert decide(DEFAULT, view(foreground=False), 0.0, 0.0).activity is Activity.STARTING


def waits(decision: Decision) -> tuple[Activity, float | None]:
    return decision.activity, decision.look_again_in and round(decision.look_again_in, 3)


def test_an_idle_agent_costs_no_timer() -> None:
    assert waits(decide(DEFAULT, SCREENS["bash"][0], 5.0, 30.0)) == (Activity.IDLE, None)


def test_a_rule_whose_silence_is_not_over_says_when_to_look_again_and_what_it_will_be() -> None:
    decision = decide(DEFAULT, SCREENS["bash"][0], 0.05, 30.0)
    assert waits(decision) == (Activity.BUSY, 0.1)
    assert decision.pending is Activity.IDLE


def test_what_no_output_announces_is_looked_at_every_second_by_those_who_wait_and_costs_others_nothing() -> None:
    for name in ("a sleeping script", "a shell's job", "sudo asks"):
        decision = decide(DEFAULT, SCREENS[name][0], 9.0, 30.0)
        assert (decision.look_again_in, decision.poll_in) == (None, 1.0)


def test_a_screen_that_nobody_knows_waits_for_output_only() -> None:
    assert waits(decide(DEFAULT, SCREENS["vim"][0], 9.0, 30.0)) == (Activity.UNKNOWN, None)


def test_every_rule_votes_with_its_lines_and_its_reason() -> None:
    decision = decide(DEFAULT, SCREENS["claude asks"][0], 1.0, 30.0)
    votes = {vote.rule: vote for vote in decision.rules}
    assert len(votes) == len(DEFAULT.rules)
    assert votes["choice"].lines == ("❯ 1. Yes", "  2. No")
    assert votes["password"].why == "canonical is false"
    assert (decision.rule, decision.dialog_kind) == ("choice", "choice")
    assert "choice" in decision.reason


def test_lines_are_matched_as_joined_over_soft_wraps() -> None:
    shown = View(rows=("Overwrite the file? [y", "/n]"), cursor=(1, 3), wrapped=(True, False))
    assert decide(DEFAULT, shown, 0.0, 30.0).activity is Activity.DIALOG


def test_the_cursor_column_counts_cells_so_wide_letters_do_not_shift_the_prompt() -> None:
    shown = View(rows=("日本 $ x",), cursor=(0, 7), canonical=False, bracketed_paste=True)
    assert (shown.before_cursor, shown.after_cursor) == ("日本 $ ", "x")
