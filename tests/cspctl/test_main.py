"""The command line as a whole: what is said where, and with which exit status."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cspctl import main as program
from cspctl.main import VERBS, Call, Shape, function_of, main, read
from cspd.errors import NO_SUCH, NOT_ACTIVE, TIMED_OUT, UNREACHABLE, USAGE, CspError

pytestmark = pytest.mark.real

Capture = pytest.CaptureFixture[str]


def words_of(usage: str, *words: str) -> Call:
    call = Call("verb")
    read(Shape(usage), call, words)
    return call


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_is_listed_has_a_function_and_a_manual(verb: str, capsys: Capture) -> None:
    assert function_of(verb).__doc__
    assert main(["help", verb]) == 0
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out.count(f"usage: cspctl {verb}") == 2


def test_without_a_verb_the_list_is_talk_and_with_help_it_is_data(capsys: Capture) -> None:
    assert main([]) == USAGE
    without = capsys.readouterr()
    assert main(["--help"]) == main(["help"]) == main(["-h"]) == 0
    assert (without.out, capsys.readouterr().out) == ("", without.err * 3)


def test_the_overview_fits_a_terminal_of_80_columns() -> None:
    assert max(map(len, program.overview().splitlines())) <= 80


def test_an_unknown_verb_or_option_suggests_the_nearest(capsys: Capture) -> None:
    assert main(["lst"]) == USAGE
    assert main(["send", "--urgnt", "--to", "a", "hi"]) == USAGE
    assert capsys.readouterr().err.splitlines() == [
        "cspctl: lst: no such verb",
        "hint: did you mean 'list'?",
        "cspctl: send: --urgnt: no such option",
        "hint: did you mean '--urgent'?",
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["send", "hi"], "send: --to NAME[,NAME]: this option is missing"),
        (["send", "--to"], "send: --to: its value is missing"),
        (["send", "--urgent=yes", "--to", "a", "b"], "send: --urgent=yes: this option takes no value"),
        (["start"], "start: NAME: this word is missing"),
        (["cat", "a", "b"], "cat: b: one word too many"),
        (["add", "a"], "add: the command is missing"),
        (["add", "a", "bash"], "add: bash: put -- before the command"),
        (["wait", "a", "--for", "idle", "--timeout", "soon"], "wait: --timeout soon: not a number of 0 or more"),
        (["wait", "a", "--for", "idel"], "wait: --for idel: not a state or activity"),
        (["send", "--to", "a", "--wait", "submited", "b"], "send: --wait submited: no such step"),
        (["send", "--to", ",", "b"], "send: --to: no name in it"),
        (["send", "--to", "a", " "], "message: empty: nothing to send"),
        (["pause"], "pause: either NAME or --room R"),
        (["pause", "a", "--room", "b"], "pause: either NAME or --room R"),
        (["kill", "a", "-s", "TREM"], "signal: TREM: not known"),
        (["help", "lst"], "lst: no such verb"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_status_2(
    words: list[str], problem: str, capsys: Capture, instance: Path
) -> None:
    assert main(words) == USAGE
    printed = capsys.readouterr()
    assert (printed.out, printed.err.splitlines()[0]) == ("", f"cspctl: {problem}")


def test_options_may_stand_anywhere_and_be_written_in_every_usual_way() -> None:
    usage = "NAME... [-n|--lines N] [--json]"
    for words in (["-n", "5", "a", "b"], ["a", "-n5", "b"], ["a", "b", "--lines=5"], ["a", "--lines", "5", "b"]):
        call = words_of(usage, *words)
        assert (call.words, call.number("lines")) == (["a", "b"], 5)
    assert words_of(usage, "--", "-n", "5").words == ["-n", "5"]


def test_text_that_begins_with_a_dash_is_text_when_it_has_a_blank() -> None:
    for text in ("- one\n- two", "-5 degrees", "--- a/file", "-"):
        assert words_of("[MESSAGE...] [--to NAME]", "--to", "a", text).words == [text]
    with pytest.raises(CspError, match="verb: --tox: no such option"):
        words_of("[MESSAGE...] [--to NAME]", "--tox")


def test_a_command_keeps_its_own_options() -> None:
    call = words_of("NAME [--cwd DIR] -- COMMAND...", "a", "--cwd", "/", "--", "ls", "--", "--cwd", "-x")
    assert (call.words, call.command, call.value("cwd")) == (["a"], ["ls", "--", "--cwd", "-x"], "/")


def test_global_options_are_taken_before_and_after_the_verb(
    cspd: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cspd.answers["agent.list"] = []
    socket = str(cspd.path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    assert main(["--json", "--socket", socket, "list"]) == main(["list", f"--socket={socket}", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n[]\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("no-such-agent", NO_SUCH),
        ("no-such-room", NO_SUCH),
        ("not-active", NOT_ACTIVE),
        ("timed-out", TIMED_OUT),
        ("storage", 1),
    ],
)
def test_cspds_errors_are_shown_with_hint_and_exit_status(code: str, status: int, cspd: Any, capsys: Capture) -> None:
    cspd.answers["agent.list"] = CspError(code, "agent: 'x\x1b': bad", "do this")
    assert main(["list"]) == status
    assert capsys.readouterr().err == "cspctl: agent: 'x\\x1b': bad\nhint: do this\n"


def test_every_problem_of_a_bad_configuration_is_listed(cspd: Any, capsys: Capture) -> None:
    problems = ["agents/a.toml: room: bad", "agents/b.toml: command: bad"]
    cspd.answers["daemon.reload"] = CspError("bad-configuration", "2 problems", data={"problems": problems})
    assert main(["reload"]) == 1
    assert capsys.readouterr().err == f"cspctl: 2 problems\n  {problems[0]}\n  {problems[1]}\n"


def test_without_cspd_the_exit_status_is_5_and_the_hint_starts_it(instance: Path, capsys: Capture) -> None:
    assert main(["list"]) == UNREACHABLE
    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence == f"cspctl: cspd: {instance}/cspd.sock: not running"
    assert hint == "hint: systemctl --user start cspd, or: cspd &"


def test_the_version_is_known_with_and_without_cspd(cspd: Any, capsys: Capture) -> None:
    cspd.answers["daemon.status"] = {"cspd": {"version": "0.2.0"}}
    assert main(["version"]) == main(["--version"]) == main(["version", "--json"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert json.loads(last)["cspd"] == "0.2.0"
    assert main(["version", "--socket", "/nonexistent/s"]) == 0
    assert "cspd is not running" in capsys.readouterr().out


def test_a_reader_that_has_enough_ends_the_program_quietly(cspd: Any) -> None:
    cspd.answers["chat.history"] = {"messages": [{"seq": n, "x": "y" * 100} for n in range(5000)]}
    words = [sys.executable, "-m", "cspctl", "history", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(20) == program.PIPE_CLOSED


def test_ctrl_c_is_quiet_and_130(cspd: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted(call: Call) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "function_of", lambda verb: interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == ""


def test_a_terminal_that_has_no_arrows_gets_escapes(cspd: Any, make_message: Any) -> None:
    cspd.answers["chat.history"] = {"messages": [make_message()]}
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    words = [sys.executable, "-m", "cspctl", "history"]
    shown = subprocess.run(words, env=environment, capture_output=True, timeout=20, check=True).stdout
    assert b"alpha \\u2192 beta: hello" in shown


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_and_yields_to_no_color(
    no_color: str, coloured: bool, cspd: Any, make_message: Any
) -> None:
    cspd.answers["chat.history"] = {"messages": [make_message()]}
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm"}
    master, slave = pty.openpty()
    try:
        words = [sys.executable, "-m", "cspctl", "history"]
        subprocess.run(words, env=environment, stdout=slave, timeout=20, check=True)
        assert (b"\x1b[" in os.read(master, 4096)) is coloured
    finally:
        os.close(master)
        os.close(slave)


def test_sending_loads_nothing_that_makes_a_start_slow(cspd: Any) -> None:
    """An agent may send often. Paths are not needed, because an agent has CSP_SOCKET."""
    cspd.answers["chat.message"] = {"message_id": "0123456789", "seq": 1, "room": "lobby", "recipients": ["a"]}
    slow = "argparse subprocess asyncio trio attrs cattrs tomllib cspd.paths cspctl.units"
    code = f"""
import sys
from cspctl.main import main
status = main(["send", "--to", "a", "hello"])
print([name for name in {slow.split()} if name in sys.modules])
"""
    environment = os.environ | {"CSP_SOCKET": str(cspd.path)}
    words = [sys.executable, "-c", code]
    shown = subprocess.run(words, env=environment, capture_output=True, timeout=20, check=True, text=True).stdout
    assert shown == "0123456789\n[]\n"
