"""A whole instance of CSP for one test: own directories, real processes, and a look that nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from real.rpc import call

PATIENCE_SEC = 20.0  # for what takes milliseconds: these tests share two cores with everything else
POLL_SEC = 0.02
STEP_MAX_SEC = 1.0
DROPPED = ("CSP_", "XDG_", "TMUX", "PYTHONDONTWRITEBYTECODE")


def eventually(condition: Callable[[], Any], what: str, patience_sec: float = PATIENCE_SEC) -> Any:
    """The first true value of `condition`. Only for facts that nothing announces.

    While this process stands still, so does the rest of the machine: such a time is nobody's delay, and does not count.
    """
    waited, last = 0.0, time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        now = time.monotonic()
        waited, last = waited + min(now - last, STEP_MAX_SEC), now
        if waited > patience_sec:
            pytest.fail(f"{what}: not within {patience_sec:g} s; last: {value!r}")
        time.sleep(POLL_SEC)  # between two looks at the world, never instead of one


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@attrs.define
class Instance:
    """`start` it, use `ctl` and `json`, and let the fixture stop it."""

    root: Path
    daemon: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        # Dozens of short-lived programs an instance: compiled modules make them twice as fast.
        own = {key: value for key, value in os.environ.items() if not key.startswith(DROPPED)}
        return own | {
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PS1": "$ ",
            "LC_ALL": "C.UTF-8",
            "INPUTRC": "/dev/null",
        }

    @property
    def runtime(self) -> Path:
        return self.root / "run" / "csp"

    def unit_file(self, name: str) -> Path:
        return self.root / "config" / "csp" / "agents" / f"{name}.toml"

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def scene(self) -> str:
        """What a failure is told with."""
        logs = [self.root / "log", *self.root.rglob("run/*/log")]  # cspd's, and those of what `cspctl run` started
        told = [f"{log.relative_to(self.root)}:\n{log.read_text()[-4000:]}" for log in logs if log.is_file()]
        files = [path for path in sorted(self.root.rglob("*/csp/**/*")) if path.is_file()]
        told += [f"{path.relative_to(self.root)}: {path.stat().st_size} bytes" for path in files]
        return "\n".join([*told, *self._agents()])

    def _agents(self) -> Iterator[str]:
        if self.daemon is not None and self.daemon.poll() is None:
            for agent in self.call("agent.list"):
                told = [self.ctl(*words, agent["name"], check=False).stdout for words in (("show",), ("screen",))]
                yield "\n".join([f"{agent['name']}:", *told])

    def start(self) -> None:
        """Start cspd and wait until it answers."""
        self.launch()
        eventually(self._answers, "cspd answers")

    def launch(self, *options: str) -> None:
        command = [sys.executable, "-m", "cspd.main", *options]
        with open(self.root / "log", "ab") as log:
            self.daemon = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)

    def _answers(self) -> bool:
        """After a SIGKILL the file is still there, and for a moment perhaps what it was just forking listens on it."""
        try:
            return bool(self.call("daemon.status"))
        except (OSError, ValueError):
            return False

    def call(self, method: str, **params: object) -> Any:
        """For questions that are asked often; what a person does goes through `ctl`."""
        return call(self.runtime / "cspd.sock", method, **params)

    def ctl(
        self, *words: str, check: bool = True, stdin: str | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "cspctl", *words],
            env=self.env | (env or {}),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.root,
        )
        if check and done.returncode:
            pytest.fail(f"cspctl {' '.join(words)}: exit {done.returncode}\n{done.stderr}\n{self.log[-3000:]}")
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.ctl("--json", *words).stdout)

    def add(self, name: str, *command: str, options: tuple[str, ...] = ()) -> None:
        self.ctl("add", name, *options, "--", *command)

    def agent(self, name: str) -> dict[str, Any]:
        return next(agent for agent in self.call("agent.list") if agent["name"] == name)

    def wait_idle(self, name: str) -> None:
        self.ctl("wait", name, "--for", "idle", "--timeout", "30")

    def screen(self, name: str, *options: str) -> str:
        return self.ctl("screen", name, *options).stdout

    def wait_screen(self, name: str, text: str) -> str:
        def shown() -> str | None:
            try:
                screen: str = self.call("agent.screen", name=name)["text"]
            except AssertionError as exc:
                if "has no terminal now" in str(exc):
                    return None  # its sidecar is on its way: the agent is started first
                raise
            return screen if text in screen else None

        found: str = eventually(shown, f"{text!r} on the screen of {name}")
        return found

    def processes(self) -> list[int]:
        """Every process that carries this instance in its environment."""
        mark = f"XDG_RUNTIME_DIR={self.root / 'run'}".encode()
        out = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    out.append(int(entry.name))
            except OSError:
                continue  # ended meanwhile
        return [pid for pid in out if alive(pid)]

    def stop(self) -> None:
        """End cspd as a person would; it ends keeper, sidecars and agents itself."""
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(timeout=40)
        self.daemon = None
