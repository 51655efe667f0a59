"""`cspctl run` on a real terminal: the agent in it, its guest in the room, and what the death of each part costs."""

import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from real.instance import Instance, eventually
from real.outer import Outer

pytestmark = pytest.mark.real

BASH = ("bash", "--norc", "--noprofile")


@contextmanager
def run(instance: Instance, *words: str, columns: int = 80, rows: int = 24) -> Iterator[Outer]:
    """`cspctl run` with these words in a terminal; whatever is left of it at the end is hung up."""
    argv = [sys.executable, "-m", "cspctl", "run", *words]
    with Outer(argv, instance.env, columns, rows) as outer:
        yield outer


def guest(instance: Instance, name: str) -> dict[str, Any] | None:
    return next((agent for agent in instance.call("agent.list") if agent["name"] == name), None)


def wait_running(instance: Instance, name: str) -> dict[str, Any]:
    def there() -> dict[str, Any] | None:
        found = guest(instance, name)
        return found if found and found["state"] == "running" else None

    found: dict[str, Any] = eventually(there, f"{name} runs")
    return found


def contents(instance: Instance, sender: str) -> list[str]:
    said = instance.call("chat.history", **{"from": sender, "limit": 1000})["messages"]
    return [message["content"] for message in said if message["kind"] == "message"]


def sidecars(instance: Instance) -> list[int]:
    """Of all runs, also when no cspd knows them."""
    found = []
    for pid in instance.processes():
        try:
            if b"cspd.sidecar.foreground" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue  # ended meanwhile
    return found


def left_behind(instance: Instance) -> list[str]:
    return [path.name for path in (instance.runtime / "agents").glob("*")]


def test_the_program_runs_in_this_terminal_and_its_status_is_ours(unstarted: Instance) -> None:
    with run(unstarted, "--", *BASH) as outer:
        outer.until_shown("runs without it")
        outer.until_shown("$")
        assert not outer.flags() & termios.ICANON, "raw"
        outer.type("echo $CSP_AGENT:$((40+2))\r")
        outer.until_shown("bash:42")
        assert sorted(left_behind(unstarted)) == ["bash.journal", "bash.screen", "bash.sock"]
        assert (unstarted.runtime / "agents" / "bash.sock").stat().st_mode & 0o777 == 0o600
        outer.type("exit 7\r")
        assert outer.wait() == 7
        assert outer.flags() == outer.before
    assert left_behind(unstarted) == []
    eventually(lambda: not unstarted.processes(), "nothing is left")


def test_a_program_that_a_signal_ends_gives_the_status_of_a_shell(unstarted: Instance) -> None:
    with run(unstarted, "--", "sh", "-c", "kill -TERM $$") as outer:
        assert outer.wait() == 128 + signal.SIGTERM


def test_what_a_program_says_that_ends_at_once_is_seen(unstarted: Instance) -> None:
    with run(unstarted, "--", "echo", "that is all") as outer:
        assert outer.wait() == 0
        assert "that is all" in outer.screen()


def test_the_size_follows_the_terminal(unstarted: Instance) -> None:
    with run(unstarted, "--", *BASH, columns=91, rows=21) as outer:
        outer.until_shown("$")
        outer.type("stty size; sh -c 'trap \"stty size; exit\" WINCH; echo wait''ing; while :; do sleep 0.05; done'\r")
        outer.until_shown("21 91")
        outer.until_shown("waiting")
        outer.resize(70, 19)
        outer.until_shown("19 70")
        outer.type("exit\r")
        outer.wait()


def test_control_keys_are_the_programs(unstarted: Instance) -> None:
    with run(unstarted, "--", *BASH) as outer:
        outer.until_shown("$")
        outer.type("cat -v <(echo he''re) -\r")
        outer.until_shown("here")
        outer.type("\x1a")
        outer.until_shown("Stopped")
        outer.type("fg\r")
        outer.until_shown("fg\ncat -v <(")
        outer.type("\x1d\r")  # the key that detaches elsewhere
        outer.until_shown("^]\n^]")
        outer.type("\x03")
        outer.until(lambda: outer.screen().rstrip().endswith("$"), "it was interrupted")
        outer.type("exit 0\r")
        assert outer.wait() == 0


def test_an_agent_of_this_terminal_is_in_the_room_like_any_other(instance: Instance) -> None:
    instance.add("alice", *BASH)
    with run(instance, "--room", "lobby", "--", *BASH) as outer:
        outer.until_shown("$")
        instance.wait_idle("bash")
        found = eventually(lambda: (row := guest(instance, "bash")) and row["attached"] and row, "this terminal counts")
        assert (found["guest"], found["attached"], found["profile"], found["room"]) == (True, 1, "shell", "lobby")
        instance.ctl("send", "--to", "bash", "--wait", "submitted", "echo to-$((1+1))-you")
        outer.until_shown("to-2-you")
        refused = instance.ctl("remove", "bash", check=False)
        assert "a guest that is there" in refused.stderr, "it would type what it has been given"
        assert guest(instance, "bash") is not None
        instance.wait_idle("bash")
        outer.type("cspctl send --to alice from-the-run\r")
        eventually(lambda: contents(instance, "bash") == ["from-the-run"], "it spoke for itself")
        instance.wait_screen("bash", "from-the-run")
        with Outer([sys.executable, "-m", "cspctl", "attach", "bash"], instance.env) as second:
            second.until_shown("from-the-run")
            second.type("echo typed-$((2+3))-elsewhere\r")
            outer.until_shown("typed-5-elsewhere")
            outer.type("exit 0\r")
            second.until(lambda: second.wait() is not None, "the other terminal is let go")
        assert outer.wait() == 0
        eventually(lambda: (guest(instance, "bash") or {})["state"] == "inactive", "it is away")
        assert instance.ctl("attach", "bash", check=False).returncode in (1, 3)
        instance.ctl("remove", "bash")
        assert guest(instance, "bash") is None


def test_it_joins_when_cspd_comes_and_again_when_it_is_restarted(unstarted: Instance) -> None:
    with run(unstarted, "--name", "Guest", "--", *BASH) as outer:
        outer.until_shown("cspd is not running")
        unstarted.start()
        wait_running(unstarted, "guest")
        assert unstarted.daemon is not None
        unstarted.daemon.kill()
        unstarted.daemon.wait()
        outer.type("echo '@alice: while you were away'\r")
        outer.until_shown("@alice")
        unstarted.start()
        wait_running(unstarted, "guest")
        unstarted.wait_idle("guest")
        unstarted.ctl("send", "--to", "guest", "--wait", "submitted", "echo back-$((3+4))")
        outer.until_shown("back-7")
        outer.type("exit\r")
        outer.wait()


ASKS = """
import json, pathlib, socket, sys, time
here, path = pathlib.Path(sys.argv[1]), sys.argv[2]
while not (here / "go").exists():
    time.sleep(0.02)
while True:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
        break
    except OSError:
        time.sleep(0.02)
lines = sock.makefile()
while True:
    sock.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"protocol": 1}}\\n')
    with open(here / "answers", "a") as answers:
        answers.write(lines.readline())
    time.sleep(0.02)
"""


def test_a_program_that_connects_to_a_new_cspd_before_its_sidecar_does_is_known_on_that_connection_later(
    instance: Instance,
) -> None:
    (instance.root / "asks.py").write_text(ASKS)
    (instance.root / "answers").touch()

    def answered(text: str) -> bool:
        return text in (instance.root / "answers").read_text()

    words = [sys.executable, str(instance.root / "asks.py"), str(instance.root), str(instance.runtime / "cspd.sock")]
    with run(instance, "--name", "asker", "--", *words):
        wait_running(instance, "asker")
        (sidecar,) = sidecars(instance)
        assert instance.daemon is not None
        instance.daemon.kill()
        instance.daemon.wait()
        os.kill(sidecar, signal.SIGSTOP)
        try:
            (instance.root / "go").touch()
            instance.start()
            eventually(lambda: answered("its agent cannot be told"), "it is refused for now")
        finally:
            os.kill(sidecar, signal.SIGCONT)
        eventually(lambda: answered('"you":"asker"'), "it is known")


def test_what_is_sent_while_it_is_away_waits_for_its_next_run(instance: Instance) -> None:
    with run(instance, "--", *BASH) as outer:
        wait_running(instance, "bash")
        outer.type("exit\r")
        outer.wait()
    sent = instance.ctl("send", "--to", "bash", "echo late-$((5+6))").stdout.strip()
    eventually(
        lambda: instance.call("chat.get", message_id=sent)["deliveries"]["bash"]["reason"] == "offline",
        "cspd has seen that it has ended",
    )
    with run(instance, "--", *BASH) as outer:
        outer.until_shown("late-11")
        outer.type("exit\r")
        outer.wait()
    assert instance.call("chat.get", message_id=sent)["deliveries"]["bash"]["step"] not in ("accepted", "held")


def test_what_nobody_heard_is_said_once_by_the_next_run_after_a_kill(unstarted: Instance) -> None:
    with run(unstarted, "--", *BASH) as outer:
        outer.until_shown("$")
        spool = unstarted.root / "state" / "csp" / "run" / "bash" / "spool"
        for i in range(5):
            outer.type(f"echo '@human: word-{i}'\r")
            outer.until_shown(f"\n@human: word-{i}")
            eventually(lambda: spool.read_bytes().count(b"sidecar.said") == i + 1, "it is written down")  # noqa: B023
        os.kill(outer.pid, signal.SIGKILL)
        outer.wait()
    eventually(lambda: not unstarted.processes(), "the agent has ended with it")
    unstarted.start()
    for _ in range(2):
        with run(unstarted, "--", *BASH) as outer:
            wait_running(unstarted, "bash")
            eventually(lambda: len(contents(unstarted, "bash")) >= 5, "all is said")
            outer.type("exit\r")
            outer.wait()
    assert contents(unstarted, "bash") == [f"word-{i}" for i in range(5)]


def test_what_was_typed_before_a_kill_is_not_typed_into_the_next_run(instance: Instance) -> None:
    received = instance.root / "received"
    with run(instance, "--", *BASH) as outer:
        outer.until_shown("$")
        wait_running(instance, "bash")
        instance.wait_idle("bash")
        outer.type("a draft")
        outer.until_shown("a draft")
        sent = instance.ctl("send", "--to", "bash", f"echo once >>{received}").stdout.strip()
        step = lambda: instance.call("chat.get", message_id=sent)["deliveries"]["bash"]  # noqa: E731
        eventually(lambda: step()["reason"] == "human_typing", "it waits for the draft")
        assert instance.daemon is not None
        instance.daemon.kill()
        instance.daemon.wait()
        outer.type("\x15")  # the draft is gone, and cspd does not hear what follows
        eventually(lambda: outer.read_some() or received.exists(), "it was typed")
        ledger = instance.root / "state" / "csp" / "run" / "bash" / "ledger"
        eventually(lambda: b'"submitted"' in ledger.read_bytes(), "that is written down")
        os.kill(outer.pid, signal.SIGKILL)
        outer.wait()
    eventually(lambda: sidecars(instance) == [], "the agent has ended with it")
    instance.start()
    with run(instance, "--", *BASH) as outer:
        eventually(lambda: outer.read_some() or step()["step"] not in ("accepted", "held"), "its step is known")
        instance.ctl("send", "--to", "bash", "--wait", "submitted", f"echo twice >>{received}")
        eventually(lambda: outer.read_some() or "twice" in received.read_text(), "the next one was typed")
        assert received.read_text() == "once\ntwice\n"
        outer.type("exit\r")
        outer.wait()


def test_the_end_of_the_terminal_ends_the_agent(unstarted: Instance) -> None:
    with run(unstarted, "--", *BASH) as outer:
        outer.until_shown("$")
        outer.type("trap '' HUP; echo rea''dy; sleep 1000\r")
        outer.until_shown("\nready")
        os.kill(outer.pid, signal.SIGHUP)
        assert outer.wait() == 128 + signal.SIGKILL, "it did not heed the hang-up"
    eventually(lambda: not unstarted.processes(), "nothing is left")


def test_the_terminal_is_given_back_when_the_sidecar_is_killed(unstarted: Instance) -> None:
    with run(unstarted, "--", *BASH) as outer:
        outer.until_shown("$")
        os.kill(*eventually(lambda: sidecars(unstarted), "the sidecar"), signal.SIGKILL)
        assert outer.wait() == 1
        assert outer.flags() == outer.before
        outer.until_shown("was killed by signal 9")
    eventually(lambda: not unstarted.processes(), "the agent has ended with it")
    with run(unstarted, "--", *BASH) as outer:  # what is left of it is in nobody's way
        outer.until_shown("$")
        outer.type("exit 3\r")
        assert outer.wait() == 3


def test_a_name_that_is_taken_gets_a_number(instance: Instance) -> None:
    instance.add("claude", *BASH)
    with run(instance, "--name", "claude", "--", *BASH) as first:
        first.until_shown("claude is taken: this is claude-2")
        with run(instance, "--name", "claude", "--", *BASH) as other:
            other.until_shown("claude is taken: this is claude-3")
            other.type("exit 0\r")
            assert other.wait() == 0
        names = {agent["name"] for agent in instance.call("agent.list")}
        assert names == {"claude", "claude-2", "claude-3"}
        first.type("cspctl run --name claude-2 -- bash; echo status=$?\r")
        first.until_shown("its own terminal")
        first.type("exit 0\r")
        assert first.wait() == 0
    assert "guest has this name" in instance.ctl("add", "claude-2", "--", "bash", check=False).stderr
    assert not instance.unit_file("claude-2").exists()


def test_an_agent_does_not_become_the_sidecar_of_a_guest(instance: Instance) -> None:
    with run(instance, "--", *BASH) as outer:
        wait_running(instance, "bash")
        script = (
            "import socket, os, json; s = socket.socket(socket.AF_UNIX); s.connect(os.environ['CSP_SOCKET']);"
            "ask = lambda m, **p: (s.sendall(json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': m, 'params': p}).encode()"
            " + b'\\n'), print(s.recv(4096).decode()));"
            "ask('sidecar.hello', protocol=1, name='bash', incarnation=1);"
            "ask('agent.register', name='another')"
        )
        (instance.root / "ask.py").write_text(script)
        outer.type(
            f"clear; {sys.executable} {instance.root}/ask.py | grep -o 'may not be the sidecar\\|only the person'\n"
        )
        outer.until_shown("may not be the sidecar")
        outer.until_shown("only the person")
        outer.type("exit\r")
        outer.wait()
    assert guest(instance, "another") is None


def test_a_run_inside_an_agent_says_that_it_is_in_no_room(instance: Instance) -> None:
    with run(instance, "--name", "outer", "--", *BASH) as outer:
        wait_running(instance, "outer")
        outer.type("cspctl run --name inner -- bash --norc; echo status=$?\r")
        outer.until_shown("only the person may")
        outer.until_shown("is in no room")
        outer.type("exit 3\r")
        outer.until_shown("status=3")
        outer.type("exit\r")
        outer.wait()
    assert guest(instance, "inner") is None
    assert "counts from the next start" not in (instance.root / "state/csp/run/outer/log").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--", "no-such-program"), "command: no-such-program: not found"),
        (("--", "/etc/passwd"), "command: /etc/passwd: not executable"),
        (("--", "/etc"), "command: /etc: a directory"),
        (("--profile", "shel", "--", "bash"), "did you mean 'shell'"),
        (("--name", "all", "--", "bash"), "meaning of its own"),
        (("--room", "A B", "--", "bash"), "'A B'"),
        (("bash", "-i"), "put -- before words"),
    ],
)
def test_a_mistake_is_said_before_anything_is_started(
    unstarted: Instance, words: tuple[str, ...], sentence: str
) -> None:
    with run(unstarted, *words, columns=120) as outer:
        assert outer.wait() == 2
        outer.until_shown(sentence)
    assert not unstarted.processes()


def test_without_a_terminal_it_says_what_to_do(unstarted: Instance) -> None:
    done = unstarted.ctl("run", "--", "bash", check=False)
    assert (done.returncode, "not a terminal" in done.stderr, "cspctl add" in done.stderr) == (1, True, True)


def test_full_screen_programs_are_restored_whole(unstarted: Instance) -> None:
    with run(unstarted, "--", sys.executable, "-q") as outer:
        outer.until_shown(">>>")
        outer.type("import os, signal\r")
        outer.type("os.write(1, b'\\x1b[?1049h\\x1b[2J\\x1b[5;5Hfull screen')\r")
        outer.until_shown("full screen")
        outer.type("os.kill(os.getpid(), signal.SIGKILL)\r")
        assert outer.wait() == 128 + signal.SIGKILL
        assert not outer.terminal.alternate
    eventually(lambda: not unstarted.processes(), "nothing is left")
