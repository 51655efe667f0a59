"""Fixtures of the tests that run a whole instance."""

import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol

import pytest
from real.faraway import gateway_config
from real.installed import Installed
from real.instance import Instance, eventually


class Observed(Protocol):
    """What knows what is to be seen of it."""

    def scene(self) -> str: ...


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is told with the logs and screens of that moment."""
    report = yield
    if report.when == "call" and report.failed:
        for name, value in item.funcargs.items():
            for key, thing in value.items() if isinstance(value, dict) else ((name, value),):
                if hasattr(thing, "scene"):
                    report.sections.append((f"scene of {key}", seen(thing)))
    return report


def seen(thing: Observed) -> str:
    try:
        return thing.scene()
    except Exception as exc:
        return f"not to be seen: {exc!r}"  # the failure itself is to be told all the same


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Ask for it before the instance, whose programs then come from this copy."""
    made = Installed.copied(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # `python -m` looks there first
    return made


@pytest.fixture
def instance(unstarted: Instance) -> Instance:
    unstarted.start()
    return unstarted


@pytest.fixture
def unstarted() -> Iterator[Instance]:
    """Its cspd is the test's to start."""
    root = Path(tempfile.mkdtemp(prefix="csp"))  # short: a socket's path holds 107 bytes
    (root / "run").mkdir()
    (root / "log").touch()
    gateway_config(root, "")  # not the usual port: these tests run side by side, and beside a person's own cspd
    made = Instance(root)
    try:
        yield made
        made.stop()
        eventually(lambda: not made.processes(), "every process has ended", 5)
        assert not list(made.runtime.rglob("*.sock")), "a socket is left behind"
        assert "Traceback" not in made.log, made.log
    finally:
        for pid in made.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root)
