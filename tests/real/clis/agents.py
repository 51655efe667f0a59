"""A real CLI as an agent of a whole instance, in a network namespace that holds nothing but a mock model.

For the tests beside it and for the benchmark: `mock_model()`, then `offline_instance(model)`, then `Agent.start`.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import tomli_w
from real.clis import homes, install, offline, shapes
from real.instance import Instance, eventually
from real.outer import Outer
from real.rpc import call

TESTS = Path(__file__).parents[2]
KEPT = ("PATH", "LANG", "PYTHONPATH", "TMPDIR")  # nothing else of our environment reaches the CLIs
DONE = ("submitted", "turn_started", "turn_ended")
START_SEC = 45.0  # gemini alone takes seven on a loaded machine


@attrs.frozen
class Model:
    """The mock model's process; whoever joins its network reaches it and nothing else."""

    pid: int
    port: int
    folder: Path

    def log(self, agent: str, event: str) -> list[dict[str, Any]]:
        written = self.folder / f"{agent}.jsonl"
        lines = written.read_text().splitlines() if written.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def url(self, agent: str) -> str:
        return f"http://127.0.0.1:{self.port}/{agent}"

    @property
    def joined(self) -> list[str]:
        """What to put before a command that shall run in its network."""
        return [sys.executable, offline.__file__, "--join", str(self.pid)]


@contextlib.contextmanager
def mock_model() -> Iterator[Model]:
    folder = Path(tempfile.mkdtemp(prefix="csp-model"))
    command = [sys.executable, offline.__file__, sys.executable, "-m", "real.clis.mock_model", str(folder)]
    env = os.environ | {"PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            yield Model(process.pid, int(process.stdout.readline()), folder)
        finally:
            process.terminate()
            shutil.rmtree(folder)


@attrs.define
class Offline(Instance):
    model: Model = attrs.field(kw_only=True)

    @property
    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key in KEPT}
        own = {
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "HOME": str(self.root),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        }
        return kept | own

    def start(self) -> None:
        command = [*self.model.joined, sys.executable, "-m", "cspd.main"]
        with open(self.root / "log", "ab") as log:
            self.daemon = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
        eventually(lambda: self.ctl("--json", "list", check=False).returncode == 0, "cspd answers")


@contextlib.contextmanager
def offline_instance(model: Model) -> Iterator[Offline]:
    instance = Offline(Path(tempfile.mkdtemp(prefix="csp")), model=model)  # short: a socket's path holds 107 bytes
    (instance.root / "run").mkdir()
    instance.start()
    try:
        yield instance
        instance.stop()
        assert "Traceback" not in instance.log, instance.log
    finally:
        for pid in instance.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(instance.root, ignore_errors=True)  # a CLI that is killed may still write


@attrs.frozen
class Agent:
    instance: Offline
    cli: str
    name: str
    cwd: Path

    @classmethod
    def configure(cls, instance: Offline, cli: str, name: str, profile: str | None = None) -> "Agent":
        """Write the unit and load it; it is not started yet."""
        agent = cls(instance, cli, name, instance.root / "work" / name)
        agent.cwd.mkdir(parents=True)
        launch = homes.launch(cli, homes.Home(instance.root / "homes" / name, agent.cwd, instance.model.url(name)))
        unit: dict[str, Any] = {
            "command": launch.command,
            "environment": launch.environment,
            "working_directory": str(agent.cwd),
            "autostart": False,
            "restart": {"policy": "no"},
        }
        path = instance.unit_file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(tomli_w.dumps(unit | ({"profile": profile} if profile else {})))
        instance.ctl("reload")
        return agent

    @classmethod
    def start(cls, instance: Offline, cli: str, name: str, profile: str | None = None) -> "Agent":
        """Configured, started and idle."""
        agent = cls.configure(instance, cli, name, profile)
        instance.ctl("start", name)
        agent.wait_for("idle")
        return agent

    @classmethod
    def with_tools(cls, instance: Offline, cli: str, name: str) -> "Agent":
        """Started, idle, and with what the person must do once for its hooks and tools done."""
        agent = cls.configure(instance, cli, name)
        instance.ctl("start", name)
        advice = instance.json("show", name)["advice"]
        if advice:
            agent.do_once(advice.rpartition(": ")[2])
            instance.ctl("restart", name)
        agent.wait_for("idle")
        assert not instance.json("show", name)["advice"]
        return agent

    def do_once(self, command: str) -> None:
        """Run a command of the CLI's own, as the person would in a terminal, in the agent's home."""
        program, *words = command.split()
        assert program == self.cli
        unit = tomllib.loads(self.instance.unit_file(self.name).read_text())
        env = self.instance.env | unit["environment"]
        run = [*self.instance.model.joined, str(install.program(self.cli)), *words]
        done = subprocess.run(run, env=env, cwd=self.cwd, input="y\n", capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def wait_for(self, activity: str) -> None:
        done = self.instance.ctl("wait", self.name, "--for", activity, "--timeout", f"{START_SEC:g}", check=False)
        if done.returncode:
            pytest.fail(
                f"{self.name} is not {activity}: {done.stderr}\n{self.instance.screen(self.name)}\n{self.explain()}"
            )

    def scene(self) -> str:
        """What a failure is told with."""
        said = call(self.instance.runtime / "cspd.sock", "chat.history", limit=5)["messages"]
        steps = [str(step) for message in said for step in self.story(message["message_id"])]
        return "\n".join([self.instance.screen(self.name), self.explain(), *steps])

    def explain(self) -> str:
        return self.instance.ctl("explain", self.name, check=False).stdout

    def send(self, body: str, *options: str) -> str:
        """As a person: from the shell, so that the body passes every layer."""
        return self.instance.ctl("send", "--to", self.name, *options, "-", stdin=body).stdout.strip()

    def story(self, message_id: str) -> list[dict[str, Any]]:
        known = call(self.instance.runtime / "cspd.sock", "chat.get", message_id=message_id)
        steps: list[dict[str, Any]] = known["steps"].get(self.name, [])
        return steps

    def reached(self, message_id: str, *steps: str, reason: str = "") -> bool:
        """Is one of these the newest step of the message?"""
        story = self.story(message_id)
        return bool(story) and story[-1]["step"] in steps and reason in (story[-1]["reason"] or "")

    def wait(self, message_id: str, *steps: str, reason: str = "", patience_sec: float = START_SEC) -> None:
        """Until it has reached one of these; otherwise fail with its story and the screen."""
        what = f"{message_id} {' or '.join(steps)} {reason}"
        try:
            eventually(lambda: self.reached(message_id, *steps, reason=reason), what, patience_sec)
        except pytest.fail.Exception as exc:
            told = "\n".join(map(str, self.story(message_id)))
            screen = self.instance.screen(self.name)
            pytest.fail(f"{exc}\n{told}\n{screen}\n{self.explain()}")

    def received(self) -> list[str]:
        """The texts that reached the model, in order, without outer white space and claude's frame."""
        return [shapes.unframed(entry["text"]) for entry in self.instance.model.log(self.name, "received")]

    def wait_received(self, count: int, patience_sec: float = START_SEC) -> list[str]:
        try:
            eventually(lambda: len(self.received()) >= count, f"{count} texts at the model", patience_sec)
        except pytest.fail.Exception as exc:
            said = call(self.instance.runtime / "cspd.sock", "chat.history", limit=20)["messages"]
            told = "\n".join(str(step) for message in said for step in self.story(message["message_id"]))
            pytest.fail(f"{exc}\n{self.received()}\n{told}\n{self.instance.screen(self.name)}\n{self.explain()}")
        return self.received()

    @contextlib.contextmanager
    def attach(self) -> Iterator[Outer]:
        """A terminal of 120 columns, from when it shows the CLI: what is typed earlier only its own tty would echo."""
        argv = [sys.executable, "-m", "cspctl", "attach", self.name]
        with Outer(argv, self.instance.env, columns=120, rows=40) as outer:
            outer.until(lambda: not outer.flags() & termios.ECHO and outer.screen().strip(), "attached")
            yield outer

    @property
    def canary(self) -> bool:
        """Has a text run as a shell command?"""
        return (self.cwd / shapes.CANARY).exists()
