"""SIGKILL of one process, or of two in sequence, while agents run and a terminal is attached."""

import itertools
import os
import signal
import sys
from pathlib import Path

import pytest
from real.installed import Installed
from real.instance import Instance, alive, eventually
from real.outer import Outer

pytestmark = pytest.mark.real

LISTENER = ("bash", "--norc", "-c", 'trap : INT; while IFS= read -r -p "> " line; do printf "got<%s>\\n" "$line"; done')


def two_agents(instance: Instance) -> dict[str, int]:
    instance.add("sh", "bash", "--norc")
    instance.add("l", *LISTENER)
    instance.wait_idle("sh")
    instance.wait_idle("l")
    return pids(instance)


def pids(instance: Instance) -> dict[str, int]:
    return {agent["name"]: agent["pid"] for agent in instance.json("list")}


def attach(instance: Instance) -> Outer:
    outer = Outer([sys.executable, "-m", "cspctl", "attach", "sh"], instance.env)
    outer.until_shown("$")
    return outer


def settled(instance: Instance, message_id: str) -> str | None:
    step: str = instance.json("message", message_id)["deliveries"]["l"]["step"]
    return step if step in ("submitted", "turn_started", "turn_ended", "unknown") else None


def kill_cspd(instance: Instance) -> None:
    assert instance.daemon is not None
    os.kill(instance.daemon.pid, signal.SIGKILL)
    instance.daemon.wait()


def test_agents_and_attached_terminals_do_not_notice_the_death_of_cspd(instance: Instance) -> None:
    before = two_agents(instance)
    with attach(instance) as outer:
        outer.type("echo one-$((1+0))\r")
        outer.until_shown("one-1")
        instance.ctl("send", "--to", "l", "--wait", "submitted", "--timeout", "30", "before")
        kill_cspd(instance)
        outer.type("echo two-$((1+1))\r")
        outer.until_shown("two-2")
        assert all(alive(pid) for pid in before.values())
        instance.start()
        assert pids(instance) == before
        assert [agent["restarts"] for agent in instance.json("list")] == [0, 0]
        eventually(lambda: instance.agent("sh")["attached"] == 1, "the attached terminal is counted again")
        instance.ctl("send", "--to", "l", "--wait", "submitted", "--timeout", "30", "after")
        outer.type("echo three-$((1+2))\r")
        outer.until_shown("three-3")
    screen = instance.screen("l", "--scrollback")
    assert screen.count("got<before>") == screen.count("got<after>") == 1


def test_what_a_terminal_said_while_cspd_was_away_is_in_the_room_afterwards(instance: Instance) -> None:
    two_agents(instance)
    with attach(instance) as outer:
        kill_cspd(instance)
        outer.type("echo away-$((1+1))\r")
        outer.until_shown("away-2")
        instance.start()
        eventually(lambda: "echo away-" in instance.ctl("history").stdout, "the line came into the room")


def test_a_killed_sidecar_is_replaced_with_the_same_screen_and_the_terminal_goes_on(instance: Instance) -> None:
    before = two_agents(instance)
    with attach(instance) as outer:
        outer.type("seq -f 'row-%g' 100; echo mark-$((1+1))\r")
        outer.until_shown("mark-2")
        screen = instance.screen("sh", "--scrollback")
        old = instance.agent("sh")["sidecar"]["pid"]
        os.kill(old, signal.SIGKILL)
        eventually(lambda: (s := instance.agent("sh")["sidecar"]) and s["pid"] != old, "a new sidecar", 5)
        assert pids(instance) == before
        eventually(lambda: instance.screen("sh", "--scrollback") == screen, "the same screen and scrollback")
        outer.type("echo again-$((1+2))\r")
        outer.until_shown("again-3")


DIES_OVER_IT = """
_output = Clients.output

def _shown(self, data):
    _output(self, data)
    if b"last-2" in data:
        os.kill(os.getpid(), 9)

Clients.output = _shown
"""


def test_what_a_terminal_has_shown_is_known_to_the_next_sidecar(installed: Installed, unstarted: Instance) -> None:
    installed.change("cspd/sidecar/clients.py", DIES_OVER_IT)
    unstarted.start()
    unstarted.add("sh", "bash", "--norc")
    with attach(unstarted) as outer:
        old = unstarted.agent("sh")["sidecar"]["pid"]
        outer.type("echo last-$((1+1))\r")
        outer.until_shown("last-2")
        eventually(lambda: not alive(old), "it has died over it")
        unstarted.wait_screen("sh", "last-2")


DIES_OF_A_QUESTION = """
_screen = screen

def screen(*args, **options):
    asked = os.path.join(os.environ["XDG_RUNTIME_DIR"], "asked")
    if not os.path.exists(asked):
        open(asked, "w").close()
        os.kill(os.getpid(), 9)
    return _screen(*args, **options)
"""


def test_a_question_over_which_a_sidecar_was_killed_is_answered_by_the_next_one(
    installed: Installed, unstarted: Instance
) -> None:
    installed.change("cspd/sidecar/answers.py", "\nimport os\n" + DIES_OF_A_QUESTION)
    unstarted.start()
    unstarted.add("sh", "bash", "--norc")
    unstarted.wait_idle("sh")
    old = unstarted.agent("sh")["sidecar"]["pid"]
    assert "$" in unstarted.screen("sh")
    assert not alive(old)


def test_a_sidecar_killed_while_it_types_never_types_twice(instance: Instance) -> None:
    two_agents(instance)
    for n in range(3):
        message_id = instance.ctl("send", "--to", "l", f"message {n}").stdout.strip()
        eventually(lambda m=message_id: instance.json("message", m)["deliveries"]["l"]["step"] != "accepted", "begun")
        os.kill(instance.agent("l")["sidecar"]["pid"], signal.SIGKILL)
        step = eventually(lambda m=message_id: settled(instance, m), "settled")
        if step == "unknown":
            assert instance.screen("l", "--scrollback").count(f"got<message {n}>") <= 1
            os.kill(instance.agent("l")["pid"], signal.SIGINT)
        else:
            instance.wait_screen("l", f"got<message {n}>")
    screen = instance.screen("l", "--scrollback")
    assert all(screen.count(f"got<message {n}>") <= 1 for n in range(3))


def test_a_killed_keeper_is_replaced_and_takes_the_terminals_back(instance: Instance) -> None:
    before = two_agents(instance)
    with attach(instance) as outer:
        keeper = instance.json("status")["keeper"]["pid"]
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: instance.json("status")["keeper"]["pid"] not in (0, keeper), "a new keeper")
        outer.type("echo on-$((1+1))\r")
        outer.until_shown("on-2")
        assert pids(instance) == before
        old = instance.agent("sh")["sidecar"]["pid"]
        os.kill(old, signal.SIGKILL)
        eventually(lambda: (s := instance.agent("sh")["sidecar"]) and s["pid"] not in (None, old), "a new sidecar")
        outer.type("echo still-$((1+1))\r")
        outer.until_shown("still-2")
    instance.ctl("stop", "sh", "l")
    assert [agent["state"] for agent in instance.json("list")] == ["inactive", "inactive"]


def test_keeper_and_cspd_killed_together_lose_no_agent(instance: Instance) -> None:
    before = two_agents(instance)
    keeper = instance.json("status")["keeper"]["pid"]
    os.kill(keeper, signal.SIGKILL)
    kill_cspd(instance)
    instance.start()
    eventually(lambda: pids(instance) == before, "adopted, not started a second time")
    assert [agent["state"] for agent in instance.json("list")] == ["running", "running"]
    instance.ctl("send", "--to", "l", "--wait", "submitted", "--timeout", "30", "hello")


def test_keeper_and_sidecar_killed_together_lose_no_agent_and_no_screen(instance: Instance) -> None:
    """The third process that holds the terminal is cspd."""
    before = two_agents(instance)
    with attach(instance) as outer:
        outer.type("echo mark-$((1+1))\r")
        outer.until_shown("mark-2")
        keeper, sidecar = instance.json("status")["keeper"]["pid"], instance.agent("sh")["sidecar"]["pid"]
        os.kill(keeper, signal.SIGKILL)
        os.kill(sidecar, signal.SIGKILL)
        eventually(lambda: instance.json("status")["keeper"]["pid"] not in (0, keeper), "a new keeper")
        eventually(lambda: instance.agent("sh")["attached"] == 1, "the terminal is back")
        outer.type("echo on-$((1+1))\r")
        outer.until_shown("on-2")
        assert "mark-2" in outer.screen()
    assert pids(instance) == before
    assert [agent["restarts"] for agent in instance.json("list")] == [0, 0]
    instance.ctl("send", "--to", "l", "--wait", "submitted", "--timeout", "30", "hello")
    instance.ctl("stop", "sh", "l")
    assert not any(alive(pid) for pid in before.values())


def kill(instance: Instance, what: str) -> None:
    """The one that lives now; it may be the successor of one that was killed a moment ago."""
    if what == "cspd":
        if instance.daemon is not None and instance.daemon.poll() is not None:
            instance.start()
        kill_cspd(instance)
        return
    found = eventually(lambda: named(instance, f"csp-{what}"), f"a {what}")
    os.kill(found[0], signal.SIGKILL)


def named(instance: Instance, name: str) -> list[int]:
    out = []
    for pid in instance.processes():
        try:
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n":
                out.append(pid)
        except OSError:
            continue  # ended meanwhile
    return out


KINDS = ("cspd", "keeper", "sidecar")


@pytest.mark.parametrize(("first", "second"), list(itertools.product(KINDS, repeat=2)))
def test_any_two_killed_in_sequence_cost_no_agent_and_no_message(instance: Instance, first: str, second: str) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    before = pids(instance)
    instance.ctl("send", "--to", "l", "--wait", "submitted", "--timeout", "30", "before")
    with Outer([sys.executable, "-m", "cspctl", "attach", "l"], instance.env) as outer:
        outer.until_shown("got<before>")
        kill(instance, first)
        kill(instance, second)
        if instance.daemon is not None and instance.daemon.poll() is not None:
            instance.start()
        eventually(lambda: instance.agent("l")["attached"] == 1, "the terminal is back", AT_ONCE_SEC)
        instance.ctl("send", "--to", "l", "--wait", "submitted", "--timeout", "30", "after")
        outer.until_shown("got<after>")
    assert pids(instance) == before
    assert instance.agent("l")["restarts"] == 0
    screen = instance.screen("l", "--scrollback")
    assert screen.count("got<before>") == screen.count("got<after>") == 1


def test_an_end_that_is_asked_for_in_the_moment_of_a_keepers_death_ends_the_agents_too(instance: Instance) -> None:
    before = two_agents(instance)
    os.kill(instance.json("status")["keeper"]["pid"], signal.SIGKILL)
    instance.stop()
    assert not any(alive(pid) for pid in before.values())


AT_ONCE_SEC = 10.0  # it takes half a second; a sidecar that lives is waited for three times as long


def test_a_sidecar_that_is_killed_while_a_new_keeper_waits_for_it_is_not_waited_for(instance: Instance) -> None:
    """It hangs when its keeper is killed, so that it cannot come, and is killed when everybody waits."""
    before = two_agents(instance)
    with attach(instance) as outer:
        outer.type("echo mark-$((1+1))\r")
        outer.until_shown("mark-2")
        keeper, sidecar = instance.json("status")["keeper"]["pid"], instance.agent("sh")["sidecar"]["pid"]
        os.kill(sidecar, signal.SIGSTOP)
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: "l: a new keeper has taken the terminal" in instance.log, "the other one has come")
        os.kill(sidecar, signal.SIGKILL)
        eventually(lambda: instance.agent("sh")["attached"] == 1, "the terminal is back", AT_ONCE_SEC)
        outer.type("echo on-$((1+1))\r")
        outer.until_shown("on-2")
        assert "mark-2" in outer.screen()
    assert pids(instance) == before
    assert [agent["restarts"] for agent in instance.json("list")] == [0, 0]
