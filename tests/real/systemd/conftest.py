"""Fixtures of the tests with a real user manager of systemd; skipped, with the reason, where none can be started."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from real.instance import DROPPED, eventually

START = Path(__file__).with_name("usermanager.sh")
PATIENCE_SEC = 60.0
SETTINGS = "[Service]\nStandardOutput=append:{log}\nStandardError=inherit\n"


ROOT = os.geteuid() == 0
# What an ordinary user needs besides: to be root in a name space of his own, and in the one of the manager.
AS_USER = () if ROOT else ("--user", "--map-root-user")
ENTER = () if ROOT else ("--user", "--preserve-credentials")
NAMESPACES = ("--mount", "--pid", "--cgroup")


def why_not() -> str:
    """Why no user manager can be started here; "" when it can."""
    for program in ("systemctl", "unshare", "nsenter", "findmnt"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    group = cgroup2()
    if group is None:
        return "no cgroup2 file system is mounted"
    if not os.access(group, os.W_OK):
        return f"{group} is not ours to divide: try `systemd-run --user --scope -p Delegate=yes .venv/bin/pytest`"
    probe = subprocess.run(["unshare", *AS_USER, *NAMESPACES, "--fork", "true"], capture_output=True)
    return "namespaces are not allowed here" if probe.returncode else ""


def cgroup2() -> Path | None:
    """The group below which the manager's is made: for root any may be, for others the one that we are in."""
    found = subprocess.run(["findmnt", "-n", "-t", "cgroup2", "-o", "TARGET"], capture_output=True, text=True).stdout
    if not found:
        return None
    mounted = Path(found.splitlines()[0])
    ours = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    return mounted if ROOT else mounted / ours.removeprefix("0::/")


@attrs.define
class UserManager:
    """Runs commands beside the manager; `root` is the home of everything."""

    root: Path
    inside: int = 0  # a process in the manager's namespaces

    @property
    def env(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith((*DROPPED, "DBUS_"))}
        return own | {
            "HOME": str(self.root),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "XDG_CONFIG_HOME": str(self.config),
            "XDG_STATE_HOME": str(self.root / ".local/state"),
            "XDG_DATA_HOME": str(self.root / ".local/share"),
            "LC_ALL": "C.UTF-8",
        }

    @property
    def config(self) -> Path:
        return self.root / ".config"

    @property
    def log(self) -> str:
        path = self.root / "service.log"
        return path.read_text() if path.exists() else ""

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", "--target", str(self.inside), *ENTER, *NAMESPACES, *command],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SEC,
            cwd=self.root,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.log[-3000:]}")
        return done

    def ctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(str(Path(sys.executable).with_name("cspctl")), *words, check=check)

    def systemctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", "--user", *words, check=check)

    def property(self, unit: str, name: str) -> str:
        return self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip()

    def pid(self, unit: str) -> str:
        """As the manager counts."""
        return self.property(unit, "MainPID")

    def agent_pid(self, name: str) -> str:
        return self.ctl("show", name, "-p", "pid", "--value").stdout.strip()

    def kill(self, unit: str, signal: str) -> None:
        self.systemctl("kill", "--kill-who=main", f"--signal={signal}", unit)

    def wait_state(self, unit: str, state: str) -> None:
        eventually(lambda: self.property(unit, "ActiveState") == state, f"{unit} is {state}", PATIENCE_SEC)

    def wait_other(self, unit: str, pid: str) -> str:
        """The next process of this unit."""

        def other() -> str:
            now = self.pid(unit)
            return now if now not in (pid, "0") and self.property(unit, "SubState") == "running" else ""

        found: str = eventually(other, f"another process of {unit}", PATIENCE_SEC)
        return found

    def settle(self, unit: str, text: str) -> None:
        """Further settings of a unit, until `reset`."""
        folder = self.config / "systemd/user" / f"{unit}.d"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(text)
        self.systemctl("daemon-reload")

    def reset(self) -> None:
        """As after an installation: nothing runs, nothing is configured."""
        for unit in ("cspd.socket", "cspd-gateway.socket", "cspd.service", "csp-keeper.service"):
            self.systemctl("stop", unit, check=False)
        self.systemctl("reset-failed", check=False)
        for folder in (self.config / "systemd/user").glob("*.d"):
            shutil.rmtree(folder)
        shutil.rmtree(self.config / "csp", ignore_errors=True)
        shutil.rmtree(self.root / "run/csp", ignore_errors=True)
        (self.root / "service.log").unlink(missing_ok=True)
        for unit in ("cspd.service", "csp-keeper.service"):
            folder = self.config / "systemd/user" / f"{unit}.d"
            folder.mkdir()
            (folder / "log.conf").write_text(SETTINGS.format(log=self.root / "service.log"))  # there is no journal
        self.systemctl("daemon-reload")


@pytest.fixture(scope="module")
def user_manager() -> Iterator[UserManager]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="csps"))
    made = UserManager(root)
    for folder in (root / "run", root / ".config/systemd/user"):
        folder.mkdir(parents=True, mode=0o700)
    with subprocess.Popen(
        [str(START), str(root), str(cgroup2()), *AS_USER], env=made.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            made.inside = _innermost(process.pid)
            made.ctl("install")
            yield made
        finally:
            process.stdin.close()
            process.wait(PATIENCE_SEC)
            subprocess.run(["chmod", "-R", "u+rwx", root], check=True)  # the manager makes some that nobody may enter
            shutil.rmtree(root)


def _innermost(pid: int) -> int:
    """The first process in the new PID namespace: script, unshare, its child."""
    while os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid"):
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


@pytest.fixture
def systemd(user_manager: UserManager) -> Iterator[UserManager]:
    user_manager.reset()
    yield user_manager
    log = user_manager.log
    user_manager.reset()
    assert "Traceback" not in log, log
