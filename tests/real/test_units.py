"""Units by `cspctl`, against real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from real.instance import Instance, alive, eventually

pytestmark = pytest.mark.real

SLEEP = ("sleep", "1000")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "for n in (signal.SIGTERM, signal.SIGHUP): signal.signal(n, signal.SIG_IGN)\n"
    "child = subprocess.Popen(['sleep', '1000'], preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))\n"
    "print('child', child.pid, flush=True)\n"
    "time.sleep(1000)",
)


def test_an_agent_is_added_started_stopped_and_removed(instance: Instance) -> None:
    instance.add("a", *SLEEP)
    assert instance.agent("a")["state"] == "running"
    pid = instance.agent("a")["pid"]
    assert instance.ctl("is-active", "a").returncode == 0
    instance.ctl("stop", "a")
    assert not alive(pid)
    assert instance.ctl("is-active", "a", check=False).returncode == 3
    instance.ctl("start", "a")
    instance.ctl("restart", "a")
    assert instance.agent("a")["pid"] not in (None, pid)
    assert "command = [" in instance.ctl("cat", "a").stdout
    again = instance.ctl("add", "a", "--", *SLEEP, check=False)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    instance.ctl("remove", "a")
    assert instance.json("list") == []
    assert not instance.unit_file("a").exists()


def test_a_crashed_agent_is_restarted_until_the_start_limit(instance: Instance) -> None:
    instance.add("a", "sh", "-c", "exit 7", options=("--restart", "always", "--restart-sec", "0", "--no-start"))
    instance.ctl("start", "a", "--no-wait")
    instance.ctl("wait", "a", "--for", "failed", "--timeout", "20")
    agent = instance.agent("a")
    assert agent["restarts"] == 4
    assert "exited with status 7" in agent["reason"]
    assert instance.ctl("status", "a").stdout.count("status 7")


def test_a_killed_agent_comes_back_as_another_process(instance: Instance) -> None:
    instance.add("a", *SLEEP, options=("--restart-sec", "0"))
    old = instance.agent("a")["pid"]
    os.kill(old, signal.SIGKILL)
    eventually(lambda: instance.agent("a")["pid"] not in (None, old), "restarted")
    assert instance.agent("a")["restarts"] == 1


def test_what_does_not_end_is_killed_with_its_whole_session(instance: Instance) -> None:
    instance.add("a", *STUBBORN, options=("--no-start",))
    with open(instance.unit_file("a"), "a") as f:
        f.write("\n[stop]\ntimeout_sec = 0.3\n")
    instance.ctl("reload")
    instance.ctl("start", "a")
    screen = instance.wait_screen("a", "child")
    pid, child = instance.agent("a")["pid"], int(screen.split()[1])
    instance.ctl("stop", "a")
    assert not alive(pid)
    eventually(lambda: not alive(child), "the child in its session is gone too")


def test_a_command_that_does_not_exist_is_said_and_the_file_is_kept(instance: Instance) -> None:
    done = instance.ctl("add", "a", "--", "/no/such/program", check=False)
    assert done.returncode == 1
    assert "not found" in done.stderr
    assert instance.unit_file("a").exists()


def test_autostart_decides_what_runs_after_a_fresh_start(instance: Instance) -> None:
    instance.add("on", *SLEEP)
    instance.add("off", *SLEEP)
    instance.ctl("disable", "off")
    instance.stop()
    instance.start()
    instance.ctl("wait", "on", "--for", "running", "--timeout", "30")
    assert instance.agent("off")["state"] == "inactive"


def test_a_unit_stopped_by_hand_stays_stopped_when_cspd_comes_back(instance: Instance) -> None:
    instance.add("a", *SLEEP)
    instance.add("b", *SLEEP)
    instance.ctl("stop", "a")
    assert instance.daemon is not None
    instance.daemon.kill()
    instance.daemon.wait()
    instance.start()
    states = {agent["name"]: agent["state"] for agent in instance.json("list")}
    assert states == {"a": "inactive", "b": "running"}


def test_an_agent_that_ended_while_cspd_was_away_is_dealt_with_afterwards(instance: Instance) -> None:
    instance.add("a", *SLEEP, options=("--restart", "on-failure", "--restart-sec", "0"))
    old = instance.agent("a")["pid"]
    assert instance.daemon is not None
    instance.daemon.kill()
    instance.daemon.wait()
    os.kill(old, signal.SIGKILL)
    eventually(lambda: not alive(old), "the agent has ended")
    instance.start()
    eventually(lambda: instance.agent("a")["state"] == "running", "restarted")
    assert instance.agent("a")["restarts"] == 1


def test_a_broken_configuration_is_reported_whole_and_changes_nothing(instance: Instance) -> None:
    instance.add("a", *SLEEP)
    pid = instance.agent("a")["pid"]
    instance.unit_file("b").write_text('command = "sleep"\n[restart]\npolicy = "allways"\n')
    instance.unit_file("c").write_text("commnd = ['sleep', '1']\n")
    done = instance.ctl("reload", check=False)
    assert done.returncode == 1
    assert "agents/b.toml: command: got 'sleep'" in done.stderr
    assert "did you mean 'always'?" in done.stderr
    assert "did you mean 'command'?" in done.stderr
    assert [agent["name"] for agent in instance.json("list")] == ["a"]
    assert instance.agent("a")["pid"] == pid


def test_reload_takes_new_files_in_and_lets_running_agents_go_on(instance: Instance) -> None:
    instance.add("a", *SLEEP)
    pid = instance.agent("a")["pid"]
    instance.unit_file("b").write_text('command = ["sleep", "5"]\n')
    text = instance.unit_file("a").read_text()
    instance.unit_file("a").write_text('room = "attic"\n' + text)
    instance.ctl("reload")
    agents = {agent["name"]: agent for agent in instance.json("list")}
    assert agents["a"]["pid"] == pid
    assert agents["a"]["room"] == "attic"
    assert "b" in agents


def test_a_reload_stops_nobody_whose_file_has_gone(instance: Instance) -> None:
    for name in ("runs", "stopped"):
        instance.add(name, *SLEEP)
    instance.ctl("stop", "stopped")
    pid, text = instance.agent("runs")["pid"], instance.unit_file("runs").read_text()
    for name in ("runs", "stopped"):
        instance.unit_file(name).unlink()
    told = instance.ctl("reload").stderr
    assert "removed: stopped" in told
    assert "runs: runs on without a unit file" in told
    assert instance.agent("runs")["pid"] == pid
    assert "is gone" in instance.ctl("status", "runs").stdout
    instance.unit_file("runs").write_text(text)  # it was moved aside for a moment
    assert "nothing has changed" in instance.ctl("reload").stderr
    instance.unit_file("runs").unlink()
    instance.ctl("remove", "runs")
    assert instance.call("agent.list") == []


def test_status_shows_what_runs_and_that_the_file_says_something_else(instance: Instance) -> None:
    instance.add("a", *SLEEP)
    path = instance.unit_file("a")
    path.write_text(path.read_text().replace("1000", "2000"))
    instance.ctl("reload")
    told = instance.ctl("status", "a").stdout
    assert "a - sleep 1000" in told
    assert "has changed since it was started: cspctl restart a" in told
    instance.ctl("restart", "a")
    told = instance.ctl("status", "a").stdout
    assert "a - sleep 2000" in told
    assert "has changed" not in told


def test_a_unit_file_that_cannot_be_deleted_is_named(instance: Instance) -> None:
    instance.add("a", *SLEEP)
    path = instance.unit_file("a")
    path.rename(path.with_suffix(".aside"))
    path.mkdir()  # also for root a file that cannot be unlinked
    refused = instance.ctl("remove", "a", check=False)
    assert refused.returncode == 1
    assert f"unit file: {path}: cannot be deleted" in refused.stderr
    assert instance.call("agent.list") == []


def test_a_broken_profile_is_told_and_refuses_nothing(instance: Instance) -> None:
    folder = instance.root / "config" / "csp" / "profiles"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('colour = "red"\n')
    assert "profiles/mine.toml: colour: unknown key" in instance.ctl("reload").stderr
    checked = subprocess.run(
        [sys.executable, "-m", "cspd.main", "--check"], env=instance.env, capture_output=True, text=True, timeout=30
    )
    assert (checked.returncode, checked.stderr) == (3, "cspd: profiles/mine.toml: colour: unknown key\n")
    instance.ctl("reexec")


def test_a_second_cspd_is_refused_and_the_first_goes_on(instance: Instance) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cspd.main"], env=instance.env, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "runs already" in done.stderr
    instance.ctl("list")


def test_a_lock_that_cannot_be_made_is_said_in_one_line(unstarted: Instance) -> None:
    lock = unstarted.root / "state" / "csp" / "cspd.lock"
    lock.mkdir(parents=True)  # also for root a file that cannot be opened for writing
    done = subprocess.run(
        [sys.executable, "-m", "cspd.main"], env=unstarted.env, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"cspd: lock: {lock}: Is a directory"


def test_a_cspd_of_another_runtime_directory_does_not_share_a_history(instance: Instance) -> None:
    (instance.root / "elsewhere").mkdir()
    env = instance.env | {"XDG_RUNTIME_DIR": str(instance.root / "elsewhere")}
    done = subprocess.run([sys.executable, "-m", "cspd.main"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert instance.daemon is not None
    assert f"another cspd uses it, as process {instance.daemon.pid}" in done.stderr
    assert "XDG_STATE_HOME" in done.stderr
    instance.add("a", *SLEEP)
    instance.ctl("send", "--to", "human", "the first one goes on")


LINGERING = 'trap "sleep 1; exit 0" TERM HUP INT; echo set; while :; do sleep 0.1; done'


def test_an_agent_that_is_started_while_it_is_removed_does_not_go_on_without_a_unit(instance: Instance) -> None:
    instance.add("slow", "bash", "-c", LINGERING)
    instance.wait_screen("slow", "set")
    with subprocess.Popen([sys.executable, "-m", "cspctl", "remove", "slow"], env=instance.env) as removal:
        eventually(lambda: instance.agent("slow")["state"] == "stopping", "it is being stopped")
        instance.ctl("start", "slow", check=False)
    assert removal.returncode == 0
    assert instance.call("agent.list") == []
    assert not [pid for pid in instance.processes() if b"trap" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_status_tells_by_which_rule_an_agent_is_busy_now(instance: Instance) -> None:
    """At first because of its output, which tells nothing any more later."""
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    instance.ctl("send", "--to", "sh", "--wait", "submitted", "sleep 1000")
    eventually(lambda: "busy (rule foreground-job" in instance.ctl("status", "sh").stdout, "the rule is told")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("XDG_STATE_HOME", "file", "file/csp: Not a directory"),
        ("XDG_RUNTIME_DIR", "file", "file/csp: Not a directory"),
        ("XDG_RUNTIME_DIR", "x" * 100, "the kernel allows 107"),
    ],
)
def test_a_cspd_that_has_no_place_says_so_in_one_line(
    unstarted: Instance, variable: str, value: str, sentence: str
) -> None:
    (unstarted.root / "file").touch()
    env = unstarted.env | {variable: str(unstarted.root / value)}
    done = subprocess.run([sys.executable, "-m", "cspd.main"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert sentence in error
    assert variable in hint


def test_sockets_are_for_their_owner_only(instance: Instance) -> None:
    instance.add("a", *SLEEP)
    eventually(lambda: instance.agent("a")["sidecar"], "it has a sidecar")
    modes = {path.name: path.stat().st_mode & 0o777 for path in instance.runtime.rglob("*") if path.is_socket()}
    assert modes == {"cspd.sock": 0o600, "keeper.sock": 0o600, "a.sock": 0o600}
    assert instance.runtime.stat().st_mode & 0o777 == 0o700
    assert (instance.root / "state" / "csp" / "history.db").stat().st_mode & 0o777 == 0o600


def test_an_agent_gets_its_name_and_room_in_its_environment(instance: Instance) -> None:
    instance.add("a", "sh", "-c", "echo $CSP_AGENT/$CSP_ROOM/$TERM; exec sleep 1000")
    instance.wait_screen("a", "a/lobby/xterm-256color")


def test_of_a_sidecar_ps_shows_whose_it_is(instance: Instance) -> None:
    instance.add("one", "cat")
    pid = eventually(lambda: instance.agent("one")["sidecar"], "it has a sidecar")["pid"]
    process = Path(f"/proc/{pid}")
    assert (process / "comm").read_text() == "csp-sidecar\n"
    assert (process / "cmdline").read_bytes().rstrip(b"\0") == b"csp-sidecar one"


def test_the_demo_holds_a_conversation_both_ways_and_leaves_nothing_behind(instance: Instance) -> None:
    done = instance.ctl("demo")
    lines = done.stdout.splitlines()
    assert any(line.startswith("alpha → beta: ") for line in lines)
    assert any(line.startswith("beta → alpha: ") for line in lines)


def test_a_restart_with_a_broken_unit_file_says_that_it_took_the_old_one(instance: Instance) -> None:
    instance.add("a", "cat")
    right = instance.unit_file("a").read_text()
    assert "unit file" not in instance.ctl("restart", "a").stderr
    instance.unit_file("a").write_text("comand = ['cat']\n")
    said = instance.ctl("restart", "a").stderr
    assert "a: running, pid" in said
    assert "a: unit file: agents/a.toml: comand: unknown key" in said
    assert "what was read before counts until that is mended" in said
    assert "Unit file: agents/a.toml: comand: unknown key" in instance.ctl("status", "a").stdout
    eventually(lambda: "a: unit file: agents/a.toml: comand" in instance.log, "the log says so")
    instance.unit_file("a").write_text(f"room = 'tower'\n{right}")
    assert "has changed: it counts after `cspctl reload`" in instance.ctl("restart", "a").stderr
    instance.ctl("reload")
    assert "Unit file" not in instance.ctl("status", "a").stdout
    assert "unit file" not in instance.ctl("restart", "a").stderr
    instance.unit_file("a").unlink()
    assert "is gone" in instance.ctl("restart", "a").stderr


def test_an_agent_that_restarts_by_itself_with_a_broken_unit_file_is_an_event(instance: Instance) -> None:
    instance.add("a", "cat")
    with subprocess.Popen(
        [sys.executable, "-m", "cspctl", "watch", "--since", "0"], env=instance.env, stdout=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stdout is not None
        instance.unit_file("a").write_text("command = 5\n")
        os.kill(instance.agent("a")["pid"], signal.SIGKILL)
        for line in watch.stdout:
            if "a: unit file: agents/a.toml: command: " in line:
                break
        watch.terminate()
