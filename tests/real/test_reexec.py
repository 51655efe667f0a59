"""`cspctl reexec`: an upgrade while agents run, messages are typed and a terminal is attached."""

import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest
from real.installed import Installed
from real.instance import Instance, alive, eventually
from real.outer import Outer
from real.test_gateway import configure, room_token, websocket
from real.test_recording import FAST, assert_without_hole, casts, numbers_in, record, written
from real.test_run import run, wait_running

pytestmark = pytest.mark.real

LISTENER = ("bash", "--norc", "-c", 'trap : INT; while IFS= read -r -p "> " line; do printf "got<%s>\\n" "$line"; done')


@pytest.fixture
def upgradable(installed: Installed, request: pytest.FixtureRequest) -> Instance:
    made: Instance = request.getfixturevalue("instance")
    return made


def versions(instance: Instance) -> tuple[str, str]:
    status = instance.call("daemon.status")
    return status["cspd"]["version"], status["keeper"]["version"]


def numbers(instance: Instance) -> dict[str, int]:
    """Every process that an upgrade must keep."""
    status = instance.call("daemon.status")
    agents = {agent["name"]: agent["pid"] for agent in status["agents"]}
    return {"cspd": status["cspd"]["pid"], "keeper": status["keeper"]["pid"], **agents}


def sidecars(instance: Instance) -> dict[str, int]:
    return {agent["name"]: agent["sidecar"]["pid"] for agent in instance.call("agent.list")}


def test_an_upgrade_replaces_everything_but_the_agents_and_the_numbers_of_processes(
    upgradable: Instance, installed: Installed
) -> None:
    upgradable.add("sh", "bash", "--norc")
    upgradable.add("l", *LISTENER)
    upgradable.wait_idle("sh")
    upgradable.wait_idle("l")
    before, old = numbers(upgradable), sidecars(upgradable)
    with Outer([sys.executable, "-m", "cspctl", "attach", "sh"], upgradable.env) as outer:
        outer.until_shown("$")
        outer.type("echo one-$((1+0))\r")
        outer.until_shown("one-1")
        installed.upgrade("99.1")
        said = upgradable.ctl("reexec").stdout
        assert "-> 99.1" in said
        assert "sidecars: 2 replaced" in said
        assert versions(upgradable) == ("99.1", "99.1")
        assert numbers(upgradable) == before
        assert not set(old.values()) & set(sidecars(upgradable).values())
        assert [agent["restarts"] for agent in upgradable.call("agent.list")] == [0, 0]
        outer.type("echo two-$((1+1))\r")
        outer.until_shown("two-2")
        assert "one-1" in outer.screen(), "the screen was handed on"
    upgradable.ctl("send", "--to", "l", "--wait", "submitted", "--timeout", "30", "hello")
    upgradable.wait_screen("l", "got<hello>")
    os.kill(before["l"], signal.SIGKILL)
    eventually(lambda: upgradable.agent("l")["pid"] not in (None, before["l"]), "the keeper still reaps it")
    assert upgradable.call("agent.get", name="l")["exit"]["signal"] == signal.SIGKILL


def test_messages_on_their_way_are_neither_lost_nor_doubled_by_an_upgrade(
    upgradable: Instance, installed: Installed
) -> None:
    upgradable.add("l", *LISTENER)
    upgradable.wait_idle("l")
    sent = [upgradable.call("chat.message", to="l", content=f"message {n}.")["message_id"] for n in range(8)]
    installed.upgrade("99.1")
    upgradable.ctl("reexec")
    sent += [upgradable.call("chat.message", to="l", content=f"message {n}.")["message_id"] for n in range(8, 10)]
    for message_id in sent:
        done = upgradable.call("chat.wait", message_id=message_id, step="submitted", timeout_sec=60)
        assert done["deliveries"]["l"]["step"] not in ("unknown", "refused")
    upgradable.wait_screen("l", "got<message 9.>")
    screen = upgradable.screen("l", "--scrollback")
    assert [screen.count(f"got<message {n}.>") for n in range(10)] == [1] * 10


def test_a_version_that_cannot_be_imported_changes_nothing(upgradable: Instance, installed: Installed) -> None:
    upgradable.add("sh", "bash", "--norc")
    upgradable.wait_idle("sh")
    before, old = numbers(upgradable), sidecars(upgradable)
    installed.upgrade("99.1")
    installed.change("cspd/sidecar/arbiter.py", "\nthis is no Python\n")
    refused = upgradable.ctl("reexec", check=False)
    assert refused.returncode == 1
    assert "keeper: the installed version cannot take over: SyntaxError" in refused.stderr
    assert "goes on" in refused.stderr
    assert (numbers(upgradable), sidecars(upgradable)) == (before, old)
    assert "99.1" not in versions(upgradable)


def test_a_version_that_does_not_understand_the_keepers_state_changes_nothing(
    upgradable: Instance, installed: Installed
) -> None:
    before = numbers(upgradable)
    installed.change("cspd/keeper/reexec.py", "\nFORMAT = 0\n")
    refused = upgradable.ctl("reexec", check=False)
    assert refused.returncode == 1
    assert "this version reads 0" in refused.stderr
    assert numbers(upgradable) == before


def test_a_configuration_with_errors_is_told_before_anything_is_replaced(
    upgradable: Instance, installed: Installed
) -> None:
    installed.upgrade("99.1")
    (upgradable.root / "config" / "csp").mkdir(parents=True, exist_ok=True)
    (upgradable.root / "config" / "csp" / "cspd.toml").write_text("colour = 1\n")
    refused = upgradable.ctl("reexec", check=False)
    assert refused.returncode == 1
    assert "cspd.toml: colour: unknown key" in refused.stderr
    assert "99.1" not in versions(upgradable)


def test_agents_may_not_have_csp_replaced(upgradable: Instance) -> None:
    upgradable.add("sh", "bash", "--norc")
    upgradable.wait_idle("sh")
    upgradable.call("chat.message", to="sh", content="cspctl reexec 2>&1 | head -1")
    upgradable.wait_screen("sh", "only the person may")


def test_a_keeper_that_took_over_ends_with_its_agents(upgradable: Instance) -> None:
    upgradable.add("sh", "bash", "--norc")
    upgradable.wait_idle("sh")
    before = numbers(upgradable)
    upgradable.ctl("reexec")
    upgradable.stop()
    eventually(lambda: not any(alive(pid) for pid in before.values()), "cspd, keeper and agent have ended")


HALT_AT_EXEC = """
import os, sys, time
if "cspd.main" in sys.orig_argv and "--resume" in sys.orig_argv:
    open({mark!r}, "w").close()
    while os.path.exists({mark!r}):
        time.sleep(0.01)
"""


def test_a_signal_in_the_moment_of_the_exec_ends_cspd_with_its_agents(
    upgradable: Instance, installed: Installed, tmp_path: Path
) -> None:
    """The new version has not yet come to read signals."""
    upgradable.add("sh", "bash", "--norc")
    upgradable.wait_idle("sh")
    before, mark = numbers(upgradable), tmp_path / "between"
    installed.change("cspd/__init__.py", HALT_AT_EXEC.format(mark=str(mark)))
    upgradable.call("daemon.reexec")
    eventually(mark.exists, "the new version is executed")
    os.kill(before["cspd"], signal.SIGTERM)
    mark.unlink()
    assert upgradable.daemon is not None
    assert upgradable.daemon.wait(60) == 0
    eventually(lambda: not any(alive(pid) for pid in before.values()), "cspd, keeper and agent have ended")


def test_a_sidecar_that_types_is_replaced_after_that(upgradable: Instance, installed: Installed) -> None:
    """The program reads nothing for a while: the text stands typed, Enter is not yet proved."""
    upgradable.add("slow", "bash", "--norc", "-c", 'read -p "> " a; sleep 2; read -p "> " b; echo "got<$b>"; sleep 99')
    upgradable.wait_idle("slow")
    message_id = upgradable.call("chat.message", to="slow", content="first line")["message_id"]
    upgradable.ctl("reexec")
    step = upgradable.call("chat.get", message_id=message_id)["deliveries"]["slow"]["step"]
    assert step != "unknown"


def test_a_recording_goes_on_in_another_file_without_a_hole(upgradable: Instance, installed: Installed) -> None:
    upgradable.add("a", sys.executable, "-c", FAST)
    record(upgradable, "a", "keep_files = 20")
    eventually(lambda: written(upgradable), "it is recorded")
    installed.upgrade("99.1")
    assert "sidecars: 1 replaced" in upgradable.ctl("reexec").stdout
    eventually(
        lambda: len(written(upgradable)) == 2 and casts(upgradable)[1].read_text().count("line-") > 400, "goes on"
    )
    upgradable.ctl("stop", "a")
    for path in casts(upgradable):
        assert numbers_in(path) == sorted(set(numbers_in(path)))
    assert_without_hole(upgradable)


def test_a_program_at_the_gateway_is_told_1001_and_comes_back_by_its_cursor(
    upgradable: Instance, installed: Installed
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = configure(upgradable, listen=f"127.0.0.1:{port}")
    follower, token = websocket(where, room_token(upgradable)), room_token(upgradable)
    upgradable.call("chat.message", to="human", content="before")
    installed.upgrade("99.1")
    upgradable.ctl("reexec")
    told = b""
    while data := follower.recv(65536):
        told += data
    follower.close()
    assert b"before" in told
    assert b"\x03\xe9" in told[-100:], "going away"
    assert room_token(upgradable) == token
    cursor = max(map(int, re.findall(rb'"cursor": ?(\d+)', told)))
    upgradable.call("chat.message", to="human", content="after")
    with websocket(where, token, f"/events?since={cursor}") as again:
        heard = b""
        while b"after" not in heard:
            heard += again.recv(65536)
    assert b"before" not in heard
    assert versions(upgradable) == ("99.1", "99.1")


def test_the_sidecar_of_a_guest_is_replaced_in_its_own_process(upgradable: Instance, installed: Installed) -> None:
    with run(upgradable, "--name", "g", "--", *LISTENER) as outer:
        before = wait_running(upgradable, "g")
        outer.until_shown(">")
        outer.type("one\r")
        outer.until_shown("got<one>")
        installed.upgrade("99.1")
        installed.change("cspd/sidecar/session.py", FAREWELL)
        assert "sidecars: 1 replaced" in upgradable.ctl("reexec").stdout
        after = wait_running(upgradable, "g")
        assert (after["pid"], after["sidecar"]) == (before["pid"], before["sidecar"])
        assert upgradable.call("agent.screen", name="g")["text"] == "of the new version"
        message_id = upgradable.call("chat.message", to="g", content="hello")["message_id"]

        def typed() -> bool:
            outer.read_some()
            step = upgradable.call("chat.get", message_id=message_id)["deliveries"]["g"]["step"]
            return step in ("submitted", "turn_started", "turn_ended")

        eventually(typed, "it was typed", 60)
        outer.until_shown("got<hello>")
        outer.type("two\r")
        outer.until_shown("got<two>")
        assert "got<one>" in outer.screen()
        os.kill(before["pid"], signal.SIGTERM)  # still a child of the sidecar
        assert outer.wait() == 128 + signal.SIGTERM


FAREWELL = """
answers.screen = lambda *_, **__: {"text": "of the new version"}
"""


def test_a_guest_goes_on_when_the_installed_version_of_its_sidecar_cannot(
    upgradable: Instance, installed: Installed
) -> None:
    with run(upgradable, "--name", "g", "--", *LISTENER) as outer:
        before = wait_running(upgradable, "g")
        outer.until_shown(">")
        installed.change("cspd/sidecar/inplace.py", "\nthis is no Python\n")
        refused = upgradable.ctl("reexec", check=False)
        assert refused.returncode == 1
        assert "g: sidecar of `cspctl run`: the installed version cannot take over: SyntaxError" in refused.stdout
        outer.type("one\r")
        outer.until_shown("got<one>")
        after = wait_running(upgradable, "g")
        assert (after["pid"], after["sidecar"]) == (before["pid"], before["sidecar"])


TOO_OLD = """
_hello = hello
async def hello(peer, introduction):
    introduction.pop("in_place", None)
    return await _hello(peer, introduction)
"""


def test_a_guest_whose_sidecar_is_too_old_is_named_and_left_alone(upgradable: Instance, installed: Installed) -> None:
    """The first versions would end when they are asked to give way, and their agents with them."""
    installed.change("cspd/sidecar/guest.py", TOO_OLD)
    with run(upgradable, "--name", "g", "--", *LISTENER) as outer:
        before = wait_running(upgradable, "g")
        outer.until_shown(">")
        done = upgradable.ctl("reexec", check=False)
        assert done.returncode == 1
        assert "g: sidecar of g: too old to be replaced" in done.stdout
        assert "`cspctl run` it again" in done.stdout
        assert wait_running(upgradable, "g")["pid"] == before["pid"]
        outer.type("one\r")
        outer.until_shown("got<one>")
