"""The units as a person has them after `cspctl install`, under a real user manager."""

import json
import shutil
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest
from real.faraway import free_port
from real.gateway import ask
from real.installed import Installed
from real.instance import eventually
from real.systemd.conftest import UserManager

pytestmark = pytest.mark.real

CSPD, KEEPER, SOCKET, GATEWAY = "cspd.service", "csp-keeper.service", "cspd.socket", "cspd-gateway.socket"


def start(systemd: UserManager, *agents: str) -> None:
    systemd.systemctl("start", CSPD)
    for name in agents:
        systemd.ctl("add", name, "--profile", "default", "--", "cat")


def write_agent(systemd: UserManager, name: str, trap: str, stop_sec: float) -> None:
    file = systemd.config / f"csp/agents/{name}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    script = f"{trap}; echo up; while :; do sleep 0.1; done"
    file.write_text(f'command = ["sh", "-c", """{script}"""]\nprofile = "default"\n[stop]\ntimeout_sec = {stop_sec}\n')


def group_of(systemd: UserManager, pid: str) -> str:
    return systemd.run("cat", f"/proc/{pid}/cgroup").stdout.rpartition("/")[2].strip()


def runs(systemd: UserManager, pid: str) -> bool:
    return systemd.run("test", "-d", f"/proc/{pid}", check=False).returncode == 0


def test_systemd_finds_no_fault_in_the_units(systemd: UserManager) -> None:
    folder = systemd.config / "systemd/user"
    units = [str(path) for path in sorted(folder.iterdir()) if path.is_file()]
    checked = systemd.run("systemd-analyze", "--user", "--man=no", "verify", *units)
    assert checked.stdout + checked.stderr == ""


def test_start_brings_both_and_agents_live_in_the_group_of_the_keeper(systemd: UserManager) -> None:
    start(systemd, "alice")
    assert systemd.property(CSPD, "ActiveState") == systemd.property(KEEPER, "ActiveState") == "active"
    assert group_of(systemd, systemd.agent_pid("alice")) == KEEPER
    assert group_of(systemd, systemd.pid(CSPD)) == CSPD
    assert systemd.property(CSPD, "StatusText") == "agents: 1 running"


def test_what_happens_to_cspd_is_no_stop_of_what_follows_it(systemd: UserManager) -> None:
    """systemd stops what has StopPropagatedFrom=cspd.service when cspd crashes; the target between them does not."""
    start(systemd)
    for unit in (SOCKET, KEEPER):
        assert systemd.property(unit, "StopPropagatedFrom") == "csp.target"


def test_the_first_connection_starts_cspd(systemd: UserManager) -> None:
    systemd.systemctl("start", SOCKET)
    assert systemd.property(CSPD, "ActiveState") == "inactive"
    assert json.loads(systemd.ctl("--json", "list").stdout) == []
    assert systemd.property(CSPD, "ActiveState") == "active"


def test_a_restart_leaves_agents_alone_and_lets_clients_wait(systemd: UserManager) -> None:
    start(systemd, "alice")
    before, keeper, cspd = systemd.agent_pid("alice"), systemd.pid(KEEPER), systemd.pid(CSPD)
    systemd.systemctl("restart", "--no-block", CSPD)
    assert systemd.agent_pid("alice") == before, "asked while it restarts"
    assert systemd.wait_other(CSPD, cspd)
    assert systemd.pid(KEEPER) == keeper


def test_who_connects_to_the_gateway_starts_cspd_and_waits_while_it_restarts(systemd: UserManager) -> None:
    where = f"127.0.0.1:{free_port()}"
    systemd.settle(GATEWAY, f"[Socket]\nListenStream=\nListenStream={where}\n")
    config = systemd.config / "csp/cspd.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('[gateway]\nlisten = "fd:gateway"\n')
    systemd.systemctl("start", GATEWAY)
    assert systemd.property(CSPD, "ActiveState") == "inactive"
    assert ask(where, "GET", "/healthz") == (200, b"ok\n"), "the first connection"
    assert systemd.property(CSPD, "ActiveState") == "active"
    assert json.loads(systemd.ctl("--json", "status").stdout)["gateway"]["listen"] == where
    for how in (("restart", "--no-block", CSPD), ("kill", "--kill-who=main", "--signal=SIGKILL", CSPD)):
        before = systemd.pid(CSPD)
        systemd.systemctl(*how)
        assert patient(where) == (200, b"ok\n"), "nobody is refused"
        systemd.wait_other(CSPD, before)
        assert ask(where, "GET", "/healthz") == (200, b"ok\n")
    systemd.systemctl("stop", CSPD)
    for unit in (GATEWAY, SOCKET):
        assert systemd.property(unit, "ActiveState") == "inactive", "nothing starts it again"


def patient(where: str) -> tuple[int, object]:
    """An answer, from whichever cspd; one that ends may drop a request that it has begun, but nobody is refused."""
    while True:
        try:
            return ask(where, "GET", "/healthz")
        except ConnectionRefusedError:
            raise
        except (ConnectionError, HTTPException):
            continue


def test_a_killed_cspd_is_started_again_and_agents_do_not_notice(systemd: UserManager) -> None:
    start(systemd, "alice")
    before, keeper, cspd = systemd.agent_pid("alice"), systemd.pid(KEEPER), systemd.pid(CSPD)
    systemd.kill(CSPD, "SIGKILL")
    systemd.wait_other(CSPD, cspd)
    assert systemd.agent_pid("alice") == before
    assert systemd.pid(KEEPER) == keeper


def test_a_cspd_that_hangs_is_replaced_and_says_where_it_hung(systemd: UserManager) -> None:
    systemd.settle(CSPD, "[Service]\nWatchdogSec=4s\n")
    start(systemd, "alice")
    before, cspd = systemd.agent_pid("alice"), systemd.pid(CSPD)
    systemd.kill(CSPD, "SIGSTOP")
    systemd.wait_other(CSPD, cspd)
    assert systemd.agent_pid("alice") == before
    assert "Fatal Python error: Aborted" in systemd.log


def test_a_cspd_that_works_feeds_the_watchdog(systemd: UserManager) -> None:
    systemd.settle(CSPD, "[Service]\nWatchdogSec=4s\n")
    start(systemd)
    cspd, signs = systemd.pid(CSPD), set[str]()

    def fed() -> bool:
        signs.add(systemd.property(CSPD, "WatchdogTimestampMonotonic"))
        return len(signs) > 3

    eventually(fed, "signs of life", 60)
    assert systemd.pid(CSPD) == cspd


def test_a_reload_with_a_broken_file_fails_and_changes_nothing(systemd: UserManager) -> None:
    start(systemd, "alice")
    before = systemd.agent_pid("alice")
    file = systemd.config / "csp/agents/alice.toml"
    right = file.read_text()
    file.write_text(right.replace("command", "comand"))
    assert systemd.systemctl("reload", CSPD, check=False).returncode != 0
    assert "comand" in systemd.log
    assert systemd.property(CSPD, "ActiveState") == "active"
    assert systemd.agent_pid("alice") == before
    file.write_text(f"room = 'tower'\n{right}")
    systemd.systemctl("reload", CSPD)
    assert systemd.ctl("show", "alice", "-p", "room", "--value").stdout == "tower\n"


def test_a_killed_keeper_comes_back_as_a_service_so_that_a_restart_of_cspd_stays_harmless(systemd: UserManager) -> None:
    start(systemd, "alice")
    before, keeper, cspd = systemd.agent_pid("alice"), systemd.pid(KEEPER), systemd.pid(CSPD)
    systemd.kill(KEEPER, "SIGKILL")
    new = systemd.wait_other(KEEPER, keeper)
    eventually(lambda: str(_keeper_of(systemd)) == new, "cspd has the new keeper")
    assert systemd.pid(CSPD) == cspd, "cspd goes on"
    systemd.systemctl("restart", CSPD)
    eventually(lambda: systemd.agent_pid("alice") == before, "its sidecar has brought its terminal to the new keeper")
    assert group_of(systemd, before) == KEEPER
    assert systemd.pid(KEEPER) == new


def _keeper_of(systemd: UserManager) -> int:
    return int(json.loads(systemd.ctl("--json", "status").stdout)["keeper"]["pid"])


def test_keeper_and_sidecar_killed_together_cost_no_agent(systemd: UserManager) -> None:
    start(systemd, "alice")
    before, keeper = systemd.agent_pid("alice"), systemd.pid(KEEPER)
    shown = ("show", "alice", "-p", "sidecar.pid", "--value")
    sidecar = eventually(lambda: systemd.ctl(*shown, check=False).stdout.strip(), "it has a sidecar")
    systemd.run("kill", "-KILL", sidecar, keeper)
    systemd.wait_other(KEEPER, keeper)
    eventually(lambda: _has_other_sidecar(systemd, sidecar), "another sidecar", 60)
    assert systemd.agent_pid("alice") == before
    systemd.ctl("send", "--to", "alice", "--wait", "submitted", "--timeout", "30", "hello")


def _has_other_sidecar(systemd: UserManager, before: str) -> bool:
    shown = systemd.ctl("show", "alice", "-p", "sidecar.pid", "--value", check=False).stdout.strip()
    return shown.isdigit() and shown != before


@pytest.fixture
def installed(systemd: UserManager) -> Iterator[Installed]:
    made = Installed.copied(systemd.root / "installed")
    systemd.settle(CSPD, f"[Service]\nEnvironment=PYTHONPATH={made.root}\nWatchdogSec=6s\n")
    systemd.settle(KEEPER, f"[Service]\nEnvironment=PYTHONPATH={made.root}\nTimeoutStopSec=1s\n")
    yield made
    systemd.systemctl("stop", CSPD)
    systemd.wait_state(KEEPER, "inactive")
    shutil.rmtree(made.root)


def test_a_reexec_keeps_processes_socket_watchdog_and_what_systemd_knows(
    systemd: UserManager, installed: Installed
) -> None:
    start(systemd, "alice")
    before = {unit: systemd.pid(unit) for unit in (CSPD, KEEPER)} | {"alice": systemd.agent_pid("alice")}
    installed.upgrade("99.1")
    assert "cspd: 0.1.0 -> 99.1" in systemd.ctl("reexec").stdout
    status = json.loads(systemd.ctl("--json", "status").stdout)
    assert (status["cspd"]["version"], status["keeper"]["version"]) == ("99.1", "99.1")
    assert {unit: systemd.pid(unit) for unit in (CSPD, KEEPER)} | {"alice": systemd.agent_pid("alice")} == before
    for unit in (CSPD, KEEPER):
        assert systemd.property(unit, "ActiveState") == "active"
        assert systemd.property(unit, "NRestarts") == "0"
    assert systemd.property(CSPD, "StatusText") == "agents: 1 running"
    signs = set[str]()
    eventually(lambda: signs.add(systemd.property(CSPD, "WatchdogTimestampMonotonic")) or len(signs) > 3, "signs", 60)
    assert systemd.pid(CSPD) == before[CSPD]
    systemd.systemctl("restart", "--no-block", CSPD)
    assert systemd.agent_pid("alice") == before["alice"], "clients wait at the socket that systemd holds"
    assert systemd.pid(KEEPER) == before[KEEPER]


def test_a_keeper_that_took_over_still_asks_systemd_for_the_time_that_agents_need(
    systemd: UserManager, installed: Installed
) -> None:
    said = systemd.root / "said"
    said.unlink(missing_ok=True)
    write_agent(systemd, "slow", f"trap 'sleep 3; echo bye > {said}; exit' TERM", stop_sec=20.0)
    systemd.systemctl("start", CSPD)
    eventually(lambda: "up" in systemd.ctl("screen", "slow", check=False).stdout, "slow is up")
    systemd.ctl("reexec")
    systemd.systemctl("stop", CSPD)
    systemd.wait_state(KEEPER, "inactive")
    assert said.read_text() == "bye\n", "longer than TimeoutStopSec=, but within its own timeout"
    assert systemd.property(KEEPER, "Result") == "success"
    assert systemd.property(SOCKET, "ActiveState") == "inactive"


def test_stop_ends_the_agents_each_in_its_own_time(systemd: UserManager) -> None:
    systemd.settle(KEEPER, "[Service]\nTimeoutStopSec=1s\n")
    said = systemd.root / "said"
    write_agent(systemd, "slow", f"trap 'sleep 3; echo bye > {said}; exit' TERM", stop_sec=20.0)
    write_agent(systemd, "deaf", "trap '' TERM HUP", stop_sec=0.5)
    systemd.systemctl("start", CSPD)
    for name in ("slow", "deaf"):
        systemd.ctl("wait", name, "--for", "running")
        eventually(lambda name=name: "up" in systemd.ctl("screen", name).stdout, f"{name} is up")
    pids = [systemd.agent_pid(name) for name in ("slow", "deaf")]
    systemd.systemctl("stop", CSPD)
    systemd.wait_state(KEEPER, "inactive")
    assert said.read_text() == "bye\n", "longer than TimeoutStopSec=, but within its own timeout"
    assert not [pid for pid in pids if runs(systemd, pid)]
    assert systemd.property(SOCKET, "ActiveState") == "inactive", "nothing starts it again"
    assert systemd.property(KEEPER, "Result") == "success"


def test_stopping_the_keeper_waits_for_the_agents_and_cspd_takes_the_next_keeper(systemd: UserManager) -> None:
    start(systemd, "alice")
    agent, cspd = systemd.agent_pid("alice"), systemd.pid(CSPD)
    systemd.systemctl("stop", KEEPER)
    assert not runs(systemd, agent)
    systemd.systemctl("start", KEEPER)
    systemd.ctl("start", "alice")
    assert group_of(systemd, systemd.agent_pid("alice")) == KEEPER
    assert systemd.pid(CSPD) == cspd


def test_logs_reads_the_journal_of_cspd_also_after_its_end(systemd: UserManager) -> None:
    if systemd.run("test", "-S", "/run/systemd/journal/stdout", check=False).returncode:
        pytest.skip("no systemd-journald could be started")
    for unit in (CSPD, KEEPER):
        (systemd.config / f"systemd/user/{unit}.d/log.conf").unlink()
    systemd.systemctl("daemon-reload")
    start(systemd, "alice", "bob")
    eventually(lambda: "bob: running" in systemd.ctl("logs").stdout, "the journal has it")
    about_alice = systemd.ctl("logs", "alice").stdout
    assert "alice: running" in about_alice
    assert "bob" not in about_alice
    systemd.systemctl("stop", CSPD, KEEPER)
    eventually(lambda: "SIGTERM: ending" in systemd.ctl("logs", "-n", "20").stdout, "what it said last")
    assert systemd.ctl("--json", "logs", "alice", "-n", "1").stdout.startswith("{")


def test_the_start_limit_of_cspd_leaves_agents_alone(systemd: UserManager) -> None:
    systemd.settle(CSPD, "[Unit]\nStartLimitBurst=3\n[Service]\nRestartSec=10ms\n")
    start(systemd, "alice")
    before, keeper = systemd.agent_pid("alice"), systemd.pid(KEEPER)
    file = systemd.config / "csp/cspd.toml"
    file.write_text("[log]\nlevel = 'loud'\n")
    systemd.kill(CSPD, "SIGKILL")
    systemd.wait_state(CSPD, "failed")
    assert "loud" in systemd.log
    assert runs(systemd, before)
    assert systemd.pid(KEEPER) == keeper
    file.unlink()
    systemd.systemctl("reset-failed", CSPD, SOCKET)
    systemd.systemctl("start", CSPD)
    assert systemd.agent_pid("alice") == before


def test_uninstall_is_refused_while_cspd_is_active_and_leaves_nothing_after_it(systemd: UserManager) -> None:
    start(systemd)
    systemd.systemctl("enable", CSPD)
    refused = systemd.ctl("uninstall", check=False)
    assert "still active" in refused.stderr
    systemd.systemctl("stop", CSPD)
    systemd.wait_state(KEEPER, "inactive")
    systemd.ctl("uninstall")
    left = [
        path for path in (systemd.config / "systemd/user").rglob("*") if not path.is_dir() and ".d" not in str(path)
    ]
    assert left == []
    assert not Path(systemd.root / ".local/share/man/man1/cspctl.1").exists()
    systemd.ctl("install")
