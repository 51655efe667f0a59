"""The rehearsal plays to its end, with the settings that sidecars are really given, and clears the stage."""

import logging
import os
import subprocess
import threading
from pathlib import Path

import pytest

from cspd.config import UnitConfig
from cspd.paths import Paths
from cspd.sidecar.rehearsal import SETTINGS, rehearse
from cspd.unit.spawning import sidecar_settings

pytestmark = pytest.mark.real


def test_it_ends_by_itself_and_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    descriptors, threads = sorted(os.listdir("/proc/self/fd")), set(threading.enumerate())
    with caplog.at_level(logging.WARNING):
        rehearse(Paths(tmp_path / "run", tmp_path / "config", tmp_path / "state"))
    assert not caplog.records
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert set(threading.enumerate()) <= threads  # an idle one of a test before may have ended meanwhile
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    assert list((tmp_path / "run").iterdir()) == []


def test_it_clears_the_stage_of_one_that_was_killed_and_of_nobody_else(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    killed, living = (tmp_path / f"rehearsal-{pid}" for pid in (ended.pid, os.getppid()))
    for folder in (killed, living):
        folder.mkdir()
        (folder / "journal").write_bytes(b"x")
    rehearse(Paths(tmp_path, tmp_path / "config", tmp_path / "state"))
    assert list(tmp_path.iterdir()) == [living]


def test_its_settings_are_a_units() -> None:
    unit = sidecar_settings(UnitConfig(name="a", command=("a",), profile="default"))
    assert unit.keys() == SETTINGS.keys()
    assert unit["record"].keys() == SETTINGS["record"].keys()


def test_without_a_place_on_the_disk_there_is_none(tmp_path: Path, tracebacks: list[str]) -> None:
    (tmp_path / "run").write_text("not a directory")
    rehearse(Paths(tmp_path / "run", tmp_path / "config", tmp_path / "state"))
    assert "rehearsal" in tracebacks.pop()
