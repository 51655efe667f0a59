"""Verbs about agents, against a stand-in for cspd."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cspctl.main import main
from cspd.errors import NO_SUCH, NOT_ACTIVE, CspError

pytestmark = pytest.mark.real

Capture = pytest.CaptureFixture[str]
Make = Callable[..., dict[str, Any]]


def test_the_list_is_aligned_and_shows_pauses(cspd: Any, make_agent: Make, capsys: Capture) -> None:
    cspd.answers["agent.list"] = [
        make_agent(),
        make_agent(name="b", state="failed", activity=None, uptime_sec=None, paused=True, command=["sh", "-c", "a b"]),
    ]
    assert main(["list"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME   STATE    ACTIVITY   QUEUED  ATTACHED  RESTARTS  UPTIME     COMMAND",
        "alpha  running  idle       0       1         0         1 min 5 s  bash -i",
        "b      failed   -, paused  0       1         0         -          sh -c 'a b'",
    ]


def test_an_empty_list_says_how_to_add_an_agent_on_stderr(cspd: Any, capsys: Capture) -> None:
    cspd.answers["agent.list"] = []
    assert main(["list"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "cspctl add" in printed.err


def test_verbose_status_adds_the_rules(cspd: Any, make_agent: Make, capsys: Capture) -> None:
    rule = {"rule": "prompt", "activity": "idle", "matched": True, "lines": [], "why": ""}
    cspd.answers |= {
        "agent.get": make_agent(),
        "inbox.get": [],
        "agent.explain": {"activity": "idle", "reason": "", "rules": [rule]},
    }
    assert main(["status", "alpha"]) == 0
    assert "prompt -> idle" not in capsys.readouterr().out
    assert main(["status", "alpha", "-v"]) == 0
    assert "* prompt -> idle" in capsys.readouterr().out


def test_show_prints_properties_with_dots(cspd: Any, make_agent: Make, capsys: Capture) -> None:
    cspd.answers["agent.get"] = make_agent(exit=None)
    assert main(["show", "alpha", "-p", "state,sidecar.pid", "-p", "command", "-p", "exit"]) == 0
    assert capsys.readouterr().out == 'state=running\nsidecar.pid=124\ncommand=["bash", "-i"]\nexit=\n'
    assert main(["show", "alpha", "-p", "autostart", "--value"]) == 0
    assert capsys.readouterr().out == "true\n"
    assert main(["show", "alpha", "--json", "-p", "pid"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pid": 123}
    assert main(["show", "alpha", "-p", "stat"]) == 2
    assert "did you mean 'state'?" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "status"), [("running", 0), ("starting", NOT_ACTIVE), ("failed", NOT_ACTIVE)])
def test_only_running_is_active(state: str, status: int, cspd: Any, make_agent: Make, capsys: Capture) -> None:
    cspd.answers["agent.get"] = make_agent(state=state)
    assert main(["is-active", "alpha"]) == status
    assert main(["is-active", "alpha", "-q"]) == status
    assert capsys.readouterr().out == f"{state}\n"


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_all_agents_are_asked_before_the_first_answer_is_awaited(verb: str, cspd: Any, make_agent: Make) -> None:
    cspd.answers[f"agent.{verb}"] = lambda params: make_agent(name=params["name"])
    assert main([verb, "a", "b"]) == main([verb, "a", "--no-wait"]) == 0
    assert [params for _, params in cspd.asked] == [
        {"name": "a", "wait": True},
        {"name": "b", "wait": True},
        {"name": "a", "wait": False},
    ]


def test_one_agent_that_fails_does_not_keep_the_others_from_starting(
    cspd: Any, make_agent: Make, capsys: Capture
) -> None:
    def start(params: dict[str, Any]) -> Any:
        if params["name"] == "a":
            return make_agent(name="a")
        return CspError("no-such-agent", f"agent: {params['name']}: not known")

    cspd.answers["agent.start"] = start
    assert main(["start", "x", "a", "y"]) == NO_SUCH
    assert capsys.readouterr().err.splitlines() == [
        "a: running, pid 123",
        "cspctl: agent: y: not known",
        "cspctl: agent: x: not known",
    ]


@pytest.mark.parametrize("words", [[], ["-s", "SIGTERM"], ["-s", "term"], ["--signal=15"]])
def test_a_signal_has_many_spellings(words: list[str], cspd: Any, make_agent: Make) -> None:
    cspd.answers["agent.kill"] = make_agent()
    assert main(["kill", "alpha", *words]) == 0
    assert cspd.params("agent.kill") == {"name": "alpha", "signal": "SIGTERM"}


def test_reload_says_what_has_changed(cspd: Any, capsys: Capture) -> None:
    cspd.answers["daemon.reload"] = {"loaded": ["a"], "changed": [], "removed": ["b", "c"]}
    assert main(["reload"]) == 0
    assert capsys.readouterr().err == "loaded: a; removed: b, c\n"


def test_reload_says_what_it_has_left_as_it_is(cspd: Any, capsys: Capture) -> None:
    cspd.answers["daemon.reload"] = {"loaded": [], "kept": ["b"], "warnings": ["profiles/p.toml: colour: unknown key"]}
    assert main(["reload"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "nothing has changed",
        "b: runs on without a unit file; cspctl remove b ends it",
        "profiles/p.toml: colour: unknown key: the default profile is used",
    ]


def test_a_screen_is_text_unless_colours_are_asked_for(cspd: Any, capsys: Capture) -> None:
    cspd.answers["agent.screen"] = {"text": "a\x1b[31mb\n$ \n\n", "rows": 4}
    assert main(["screen", "alpha"]) == main(["screen", "alpha", "--ansi", "--scrollback"]) == 0
    assert capsys.readouterr().out == "a\\x1b[31mb\n$ \na\x1b[31mb\n$ \n"
    assert cspd.params("agent.screen") == {"name": "alpha", "scrollback": True, "ansi": True}


def test_waiting_says_for_what_and_how_long(cspd: Any, make_agent: Make) -> None:
    cspd.answers["agent.wait"] = make_agent()
    assert main(["wait", "alpha", "--for", "idle", "--timeout", "5"]) == main(["wait", "alpha", "--for", "exited"]) == 0
    assert [params for _, params in cspd.asked] == [
        {"name": "alpha", "for": "idle", "timeout_sec": 5.0},
        {"name": "alpha", "for": "exited", "timeout_sec": None},
    ]


def test_attaching_to_an_agent_that_does_not_run_is_refused_at_once(
    cspd: Any, make_agent: Make, capsys: Capture
) -> None:
    cspd.answers["agent.get"] = make_agent(state="inactive")
    assert main(["attach", "alpha"]) == NOT_ACTIVE
    assert capsys.readouterr().err == "cspctl: agent: alpha: inactive\nhint: cspctl start alpha\n"
