"""Fixtures of the tests that run a whole instance."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real.installed import Installed
from real.instance import Instance, eventually


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
