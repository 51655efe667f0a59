"""The files of a profile's wiring: written before the start, for nobody else to read, and never in the way of it."""

import json
import stat
from pathlib import Path

import pytest

from cspd.config import UnitConfig
from cspd.paths import Paths
from cspd.unit.wiring import CSPCTL, forget_wiring, wired, wiring_advice

pytestmark = pytest.mark.real


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "run", tmp_path / "config", tmp_path / "state")


def unit(profile: str, *command: str, wire: bool = True) -> UnitConfig:
    return UnitConfig("alice", command, profile, working_directory=Path("/"), wire=wire)


def test_the_command_is_extended_and_the_files_are_private(paths: Paths) -> None:
    command, environment = wired(unit("claude", "claude", "-c"), paths)
    path = paths.wiring_dir("alice") / "settings.json"
    assert command == ["claude", "-c", "--settings", str(path), "--mcp-config", str(path.with_name("mcp.json"))]
    assert environment == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert str(CSPCTL[0]) in json.loads(path.read_text())["hooks"]["Stop"][0]["hooks"][0]["command"]
    assert {each.name for each in path.parent.iterdir()} == {"settings.json", "mcp.json"}


def test_a_unit_may_go_without(paths: Paths) -> None:
    assert wired(unit("claude", "claude", wire=False), paths) == (["claude"], {})
    assert not paths.state.exists()


def test_the_agent_starts_without_hooks_when_the_files_cannot_be_written(
    paths: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    paths.state.mkdir()
    (paths.state / "wiring").write_text("in the way")
    assert wired(unit("claude", "claude"), paths) == (["claude"], {})
    assert "alice: started without hooks" in caplog.text


def test_a_persons_own_profile_counts(paths: Paths) -> None:
    paths.profiles_dir.mkdir(parents=True)
    (paths.profiles_dir / "claude.toml").write_text('[wiring]\nenvironment = { WHO = "{name}" }')
    assert wired(unit("claude", "claude"), paths) == (["claude"], {"WHO": "alice"})


def test_a_removed_agent_leaves_no_files(paths: Paths) -> None:
    wired(unit("claude", "claude"), paths)
    forget_wiring("alice", paths)
    forget_wiring("alice", paths)
    assert list((paths.state / "wiring").iterdir()) == []


def test_what_the_person_must_do_once_is_said_until_it_was_done(paths: Paths, tmp_path: Path) -> None:
    home = tmp_path / "home"
    agent = UnitConfig("alice", ("gemini",), "gemini", working_directory=Path("/"), environment={"HOME": str(home)})
    assert wiring_advice(agent, paths) == "", "there is nothing to link yet"
    wired(agent, paths)
    shared = paths.shared_wiring_dir("gemini")
    assert (shared / "hooks" / "hooks.json").exists()
    assert f"gemini extensions link {shared}" in wiring_advice(agent, paths)
    (home / ".gemini" / "extensions" / "csp").mkdir(parents=True)
    assert wiring_advice(agent, paths) == ""
    forget_wiring("alice", paths)
    assert shared.exists(), "others have it linked"


def test_an_agent_that_is_not_wired_is_asked_for_nothing(paths: Paths) -> None:
    wired(unit("gemini", "gemini"), paths)
    assert wiring_advice(unit("gemini", "gemini", wire=False), paths) == ""
