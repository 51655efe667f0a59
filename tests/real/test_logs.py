"""cspd's log by way of cspd, where there is no journal; and what status says of a profile."""

import json
import signal
import subprocess
import sys

import pytest
from real.instance import Instance

pytestmark = pytest.mark.real


def test_logs_shows_the_last_lines_and_those_about_one_agent(instance: Instance) -> None:
    instance.add("alice", "cat")
    instance.add("bob", "cat")
    everything = instance.ctl("logs").stdout
    assert "ready: 0 agents" in everything
    assert "alice: running" in everything
    about_bob = instance.ctl("logs", "bob", "-n", "1").stdout
    assert about_bob.count("\n") == 1
    assert "bob: running" in about_bob
    entries = [json.loads(line) for line in instance.ctl("--json", "logs", "alice").stdout.splitlines()]
    assert {entry["agent"] for entry in entries} == {"alice"}
    assert instance.ctl("logs", "nobody", check=False).returncode == 4


def test_logs_follows_across_a_restart_of_cspd(instance: Instance) -> None:
    command = [sys.executable, "-m", "cspctl", "logs", "-f", "-n", "0"]
    with subprocess.Popen(
        command, env=instance.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follow:
        assert follow.stdout is not None
        assert follow.stderr is not None
        try:
            instance.add("alice", "cat")
            _until(follow.stdout.readline, "alice: running")
            assert instance.daemon is not None
            instance.daemon.kill()
            instance.daemon.wait()
            _until(follow.stderr.readline, "waiting for it")
            instance.start()
            _until(follow.stdout.readline, "ready: 1 agents")
        finally:
            follow.send_signal(signal.SIGINT)
    assert follow.returncode == 130


def _until(read: object, text: str) -> None:
    assert callable(read)
    for line in iter(read, ""):
        if text in line:
            return
    pytest.fail(f"{text!r} did not come")


def test_status_says_that_a_profile_is_gone(instance: Instance) -> None:
    folder = instance.root / "config/csp/profiles"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('extends = "default"\n')
    instance.add("alice", "cat", options=("--profile", "mine"))
    assert "default profile" not in instance.ctl("status", "alice").stdout
    (folder / "mine.toml").unlink()
    said = instance.ctl("status", "alice").stdout
    assert "profile: 'mine': not known" in said
    assert "the default profile is used" in said
