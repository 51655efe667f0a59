"""What a machine does to programs: full disks, locked and damaged files, no descriptors, programs that misbehave."""

import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from real.instance import Instance, alive, eventually
from real.outer import Outer
from real.person import press

pytestmark = pytest.mark.real

LISTENER = ("bash", "--norc", "-c", 'trap : INT; while IFS= read -r -p "> " line; do printf "got<%s>\\n" "$line"; done')


@contextmanager
def limited(pid: int, what: int, soft: int) -> Iterator[None]:
    """Of another process, for a while."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def cspd_pid(instance: Instance) -> int:
    assert instance.daemon is not None
    return instance.daemon.pid


def keeper_pid(instance: Instance) -> int:
    return int(instance.call("daemon.status")["keeper"]["pid"])


def sidecar_pid(instance: Instance, name: str) -> int:
    return int(eventually(lambda: instance.agent(name)["sidecar"], f"{name} has a sidecar")["pid"])


def descriptors(pid: int) -> int:
    """One more than the highest number in use: with this limit nothing can be opened."""
    return 1 + max(int(entry) for entry in os.listdir(f"/proc/{pid}/fd"))


def history(instance: Instance) -> Path:
    return instance.root / "state" / "csp" / "history.db"


def kill_cspd(instance: Instance) -> None:
    assert instance.daemon is not None
    instance.daemon.kill()
    instance.daemon.wait()


def say(instance: Instance, name: str, text: str) -> None:
    instance.ctl("send", "--to", name, "--wait", "submitted", "--timeout", "40", text)


# ---------------------------------------------------------------------- the disk


def test_a_disk_that_takes_nothing_refuses_messages_and_forgets_none(instance: Instance) -> None:
    """A limit on the size of files is to a program what a full disk is: writes fail, and begin to work again."""
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    say(instance, "l", "before.")
    with limited(cspd_pid(instance), resource.RLIMIT_FSIZE, 0):
        refused = instance.ctl("send", "--to", "l", "during.", check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith("cspctl: history: ")
        assert "hint: " in refused.stderr
        assert instance.agent("l")["state"] == "running"
    say(instance, "l", "after.")
    screen = instance.wait_screen("l", "got<after.>")
    assert (screen.count("got<before.>"), screen.count("got<during.>")) == (1, 0)


def test_a_disk_that_takes_nothing_costs_a_sidecar_only_its_memory(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with Outer([sys.executable, "-m", "cspctl", "attach", "sh"], instance.env) as outer:
        outer.until_shown("$")
        with limited(sidecar_pid(instance, "sh"), resource.RLIMIT_FSIZE, 0):
            outer.type("echo still-$((1+1))\r")
            outer.until_shown("still-2")
        outer.type("echo again-$((1+1))\r")
        outer.until_shown("again-2")


def test_a_history_that_another_program_holds_is_waited_for_and_then_refused(instance: Instance) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    with sqlite3.connect(history(instance), isolation_level=None) as other:
        other.execute("begin exclusive")
        refused = instance.ctl("send", "--to", "l", "held", check=False)
        assert refused.returncode == 1
        assert "locked" in refused.stderr
        assert "another program holds it" in refused.stderr
        other.execute("rollback")
    other.close()
    say(instance, "l", "free.")


def test_a_damaged_history_is_set_aside_and_a_new_one_begun_and_that_is_said_loudly(instance: Instance) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    say(instance, "l", "before.")
    before = instance.agent("l")["pid"]
    kill_cspd(instance)
    for path in history(instance).parent.glob("history.db-*"):
        path.unlink()
    with open(history(instance), "r+b") as f:
        f.write(b"this is no database at all")
    instance.start()
    aside = history(instance).with_name("history.db.corrupt-1")
    assert aside.read_bytes().startswith(b"this is no database")
    assert f"history: damaged: set aside as {aside}" in instance.log
    assert str(aside) in instance.ctl("status").stdout
    assert instance.agent("l")["pid"] == before
    say(instance, "l", "after.")
    assert "before." not in instance.ctl("history").stdout


def damage(instance: Instance) -> None:
    """Beneath a cspd that runs: what was written last is read no more."""
    wal = history(instance).with_name("history.db-wal")
    with open(wal, "r+b") as f:
        f.seek(32)
        f.write(b"\xff" * (wal.stat().st_size - 32))


def test_a_history_that_is_damaged_while_cspd_runs_is_set_aside_without_a_restart(instance: Instance) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    say(instance, "l", "before.")
    before, sidecar, pid = instance.agent("l")["pid"], sidecar_pid(instance, "l"), cspd_pid(instance)
    with Outer([sys.executable, "-m", "cspctl", "attach", "l"], instance.env) as outer:
        outer.until_shown("got<before.>")
        damage(instance)
        refused = instance.ctl("history", check=False)
        assert refused.returncode == 1
        assert "sets the damaged file aside and begins a new one" in refused.stderr
        aside = history(instance).with_name("history.db.corrupt-1")
        eventually(lambda: f"history: damaged: set aside as {aside}" in instance.log, "it is said")
        eventually(lambda: instance.log.count("cspd: ready") == 2, "cspd is back")
        say(instance, "l", "after.")
        outer.until_shown("got<after.>")
    assert aside.exists()
    assert str(aside) in instance.ctl("status").stdout
    assert (instance.agent("l")["pid"], sidecar_pid(instance, "l"), cspd_pid(instance)) == (before, sidecar, pid)
    assert instance.screen("l", "--scrollback").count("got<before.>") == 1
    damage(instance)
    instance.ctl("history", check=False)
    eventually(lambda: "damaged again: is the disk failing?" in instance.log, "not for ever")
    assert instance.agent("l")["pid"] == before


# ---------------------------------------------------------------------- descriptors


def test_cspd_without_free_descriptors_goes_on_when_there_are_some(instance: Instance) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    pid = cspd_pid(instance)
    with limited(pid, resource.RLIMIT_NOFILE, descriptors(pid)):
        instance.ctl("list", check=False)  # whatever it says
        os.kill(sidecar_pid_by_name(instance, "l"), signal.SIGKILL)  # its successor wants to connect
    say(instance, "l", "hello.")
    assert cspd_pid(instance) == pid
    assert alive(pid)


def sidecar_pid_by_name(instance: Instance, name: str) -> int:
    """Without asking cspd."""
    (pid,) = [p for p in instance.processes() if Path(f"/proc/{p}/comm").read_text() == "csp-sidecar\n"]
    return pid


def test_a_keeper_without_free_descriptors_keeps_what_it_has(instance: Instance) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    before, keeper = instance.agent("l")["pid"], keeper_pid(instance)
    sidecar = sidecar_pid(instance, "l")
    with limited(keeper, resource.RLIMIT_NOFILE, descriptors(keeper)):
        refused = instance.ctl("add", "other", "--", "cat", check=False)
        assert refused.returncode == 1
        assert "open files" in refused.stderr
        os.kill(sidecar, signal.SIGKILL)
        eventually(lambda: "it is tried again" in instance.log, "no sidecar could be forked")
    say(instance, "l", "hello.")
    assert (instance.agent("l")["pid"], keeper_pid(instance)) == (before, keeper)
    instance.ctl("start", "other")


def test_a_sidecar_without_free_descriptors_holds_its_terminal_over_the_death_of_the_keeper(
    instance: Instance,
) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    before, sidecar = instance.agent("l")["pid"], sidecar_pid(instance, "l")
    with limited(sidecar, resource.RLIMIT_NOFILE, descriptors(sidecar)):
        os.kill(keeper_pid(instance), signal.SIGKILL)
        eventually(lambda: "Too many open files" in instance.log, "it could not make a new lifeline")
        assert alive(sidecar)
    eventually(lambda: instance.log.count("l: a new keeper has taken the terminal") == 1, "the keeper took it back")
    say(instance, "l", "hello.")
    assert (instance.agent("l")["pid"], instance.agent("l")["restarts"]) == (before, 0)


# ---------------------------------------------------------------------- agents that misbehave


def test_an_agent_that_reads_nothing_fills_its_terminal_and_nothing_else(instance: Instance) -> None:
    """More is typed than the kernel's buffer and ours hold."""
    instance.add("deaf", "bash", "-c", "stty raw -echo; echo ready; exec sleep 1000")
    instance.add("l", *LISTENER)
    instance.wait_screen("deaf", "ready")
    with Outer([sys.executable, "-m", "cspctl", "attach", "deaf"], instance.env) as outer:
        outer.until_shown("ready")
        with pytest.raises(OSError, match="timed out"):
            press(instance.runtime / "agents" / "deaf.sock", b"x" * (4 << 20), patience_sec=1.0)
        assert "ready" in instance.call("agent.screen", name="deaf")["text"]
        say(instance, "l", "hello.")
    sidecar = sidecar_pid(instance, "deaf")
    assert resident(sidecar) < 100 << 20
    instance.ctl("stop", "deaf")


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def test_an_agent_that_floods_costs_the_others_nothing(instance: Instance) -> None:
    instance.add("flood", "yes", "a line of a program that does not stop")
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    with Outer([sys.executable, "-m", "cspctl", "attach", "flood"], instance.env) as outer:
        outer.until_shown("does not stop")
        say(instance, "l", "hello.")
        assert "does not stop" in instance.call("agent.screen", name="flood")["text"]
        instance.ctl("stop", "flood")
        assert instance.agent("flood")["state"] == "inactive"
    assert resident(sidecar_pid(instance, "l")) < 100 << 20


def test_a_program_that_ignores_every_polite_signal_is_killed_after_its_timeout(instance: Instance) -> None:
    stubborn = "trap '' HUP TERM INT; echo ready; while :; do sleep 1000; done"
    instance.add("deaf", "bash", "-c", stubborn)
    instance.wait_screen("deaf", "ready")
    path = instance.unit_file("deaf")
    path.write_text(path.read_text() + "\n[stop]\ntimeout_sec = 0.5\n")
    instance.ctl("reload")
    pid = instance.agent("deaf")["pid"]
    instance.ctl("stop", "deaf")
    assert not alive(pid)
    assert instance.call("agent.get", name="deaf")["exit"]["signal"] == signal.SIGKILL


def test_the_end_of_everything_does_not_wait_for_a_program_that_ignores_signals(instance: Instance) -> None:
    instance.add("deaf", "bash", "-c", "trap '' HUP TERM INT; echo ready; while :; do sleep 1000; done")
    instance.wait_screen("deaf", "ready")
    path = instance.unit_file("deaf")
    path.write_text(path.read_text() + "\n[stop]\ntimeout_sec = 0.5\n")
    instance.ctl("reload")
    instance.ctl("restart", "deaf")
    instance.wait_screen("deaf", "ready")
    instance.stop()  # and the fixture sees that nothing is left


# ---------------------------------------------------------------------- forkserver loss


def forkserver_pid(instance: Instance) -> int:
    """0: there is none now."""
    named = [p for p in instance.processes() if Path(f"/proc/{p}/comm").read_text() == "csp-forkserver\n"]
    return named[0] if named else 0


def test_a_killed_forkserver_is_replaced_and_nobody_notices(instance: Instance) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    before, sidecar, keeper = instance.agent("l")["pid"], sidecar_pid(instance, "l"), keeper_pid(instance)
    forkserver = forkserver_pid(instance)
    os.kill(forkserver, signal.SIGKILL)
    os.kill(sidecar, signal.SIGKILL)  # its successor has to wait for the next forkserver
    say(instance, "l", "hello.")
    assert (instance.agent("l")["pid"], keeper_pid(instance)) == (before, keeper)
    assert eventually(lambda: forkserver_pid(instance), "another forkserver") != forkserver
    assert sidecar_pid(instance, "l") != sidecar


def test_a_forkserver_that_does_not_answer_is_replaced(instance: Instance) -> None:
    instance.add("l", *LISTENER)
    instance.wait_idle("l")
    forkserver = forkserver_pid(instance)
    os.kill(forkserver, signal.SIGSTOP)
    os.kill(sidecar_pid(instance, "l"), signal.SIGKILL)
    say(instance, "l", "hello.")
    assert not alive(forkserver)


# ---------------------------------------------------------------------- keeper loss


def test_how_an_agent_ended_after_the_loss_of_its_keeper_is_right_or_not_known(instance: Instance) -> None:
    instance.add("mortal", "bash", "-c", "echo ready; read line; exit 7")
    instance.wait_screen("mortal", "ready")
    keeper = keeper_pid(instance)
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: keeper_pid(instance) not in (0, keeper), "a new keeper")
    eventually(lambda: "taken the terminal" in instance.log, "it has the terminal back")
    press(instance.runtime / "agents" / "mortal.sock", b"\n")
    instance.ctl("wait", "mortal", "--for", "exited", "--timeout", "30")
    assert instance.call("agent.get", name="mortal")["exit"] in ({}, {"code": 7})


def test_a_cspd_that_waits_for_the_service_of_its_keeper_can_be_ended(unstarted: Instance) -> None:
    unstarted.launch("--no-keeper")
    waiting = unstarted.daemon
    assert waiting is not None
    eventually(lambda: (unstarted.runtime / "cspd.sock").exists(), "it has begun")
    os.kill(waiting.pid, signal.SIGTERM)
    assert waiting.wait(30) == 0


# ---------------------------------------------------------------------- idleness


def test_nobody_wakes_up_while_nobody_asks(instance: Instance) -> None:
    """The kernel counts how often a process went to sleep; who never wakes up never does again."""
    instance.add("sh", "bash", "--norc")
    instance.add("cat", "cat")
    instance.wait_idle("sh")
    instance.wait_idle("cat")
    processes = [cspd_pid(instance), keeper_pid(instance), sidecar_pid(instance, "sh"), sidecar_pid(instance, "cat")]

    def unmoved() -> bool:
        before = [sleeps(pid) for pid in processes]
        time.sleep(3)  # the length of the look itself: nothing is waited for
        return before == [sleeps(pid) for pid in processes]

    eventually(unmoved, "three seconds without a wake-up", 30)


def sleeps(pid: int) -> int:
    """Of all its threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        total += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total
