"""The rehearsal plays to its end, with the settings that sidecars are really given, and clears the stage."""

import logging
import os
import threading
from pathlib import Path

import pytest

from cspd.config import UnitConfig
from cspd.paths import Paths
from cspd.sidecar.rehearsal import SETTINGS, rehearse
from cspd.unit.manager import sidecar_settings

pytestmark = pytest.mark.real


def test_it_ends_by_itself_and_leaves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = (sorted(os.listdir("/proc/self/fd")), threading.active_count())
    with caplog.at_level(logging.WARNING):
        rehearse(Paths(tmp_path / "run", tmp_path / "config", tmp_path / "state"))
    assert not caplog.records
    assert (sorted(os.listdir("/proc/self/fd")), threading.active_count()) == before
    assert list(tmp_path.iterdir()) == []


def test_its_settings_are_a_units() -> None:
    unit = sidecar_settings(UnitConfig(name="a", command=("a",), profile="default"))
    assert unit.keys() == SETTINGS.keys()
    assert unit["record"].keys() == SETTINGS["record"].keys()


def test_without_a_place_on_the_disk_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such directory"))
    rehearse(Paths(tmp_path / "run", tmp_path / "config", tmp_path / "state"))
    assert "rehearsal" in caplog.text
