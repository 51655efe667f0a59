"""Verbs about unit files, with and without cspd."""

import os
import stat
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspctl.main import main
from cspd.errors import NO_SUCH, CspError

pytestmark = pytest.mark.real

Capture = pytest.CaptureFixture[str]
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def units(instance: Path) -> Path:
    return instance.parent.parent / "c" / "csp" / "agents"


@pytest.fixture
def existing(units: Path) -> Path:
    units.mkdir(parents=True)
    path = units / "alpha.toml"
    path.write_text('# mine\ncommand = ["bash"]  # a shell\n')
    return path


def test_adding_writes_the_file_loads_it_and_starts_the_agent(
    cspd: Any, units: Path, make_agent: Make, capsys: Capture
) -> None:
    cspd.answers |= {"agent.load": make_agent(state="inactive"), "agent.start": make_agent()}
    words = ["--room", "dev", "--restart", "always", "--restart-sec", "90", "--", "sh", "-c", 'echo "x"']
    assert main(["add", "alpha", *words]) == 0
    path = units / "alpha.toml"
    assert tomllib.loads(path.read_text()) == {
        "command": ["sh", "-c", 'echo "x"'],
        "working_directory": os.getcwd(),
        "room": "dev",
        "restart": {"policy": "always", "delay_sec": 90.0, "delay_max_sec": 90.0},
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [method for method, _ in cspd.asked] == ["agent.load", "agent.start"]
    assert capsys.readouterr().err == "alpha: running, pid 123\n"


def test_adding_without_cspd_writes_the_file_and_says_when_it_starts(units: Path, capsys: Capture) -> None:
    assert main(["add", "alpha", "--cwd", "~", "--", "sh"]) == 0
    assert tomllib.loads((units / "alpha.toml").read_text())["working_directory"] == "~"
    assert "cspd is not running; the agent starts with it" in capsys.readouterr().err


def test_adding_never_overwrites(cspd: Any, existing: Path, capsys: Capture) -> None:
    before = existing.read_bytes()
    assert main(["add", "alpha", "--", "sh"]) == 1
    assert existing.read_bytes() == before
    assert cspd.asked == []


@pytest.mark.parametrize("running", [True, False])
def test_a_file_that_is_refused_is_taken_back(
    running: bool, units: Path, instance: Path, request: pytest.FixtureRequest, capsys: Capture
) -> None:
    if running:
        request.getfixturevalue("cspd").answers["agent.load"] = CspError("bad-configuration", "alpha: bad")
        assert main(["add", "alpha", "--", "sh"]) == 1
    else:
        assert main(["add", "alpha", "--restart", "allways", "--", "sh"]) == 1
        assert "'always'" in capsys.readouterr().err
    assert not (units / "alpha.toml").exists()


def test_a_file_is_kept_when_only_the_start_fails(cspd: Any, units: Path, make_agent: Make, capsys: Capture) -> None:
    cspd.answers |= {"agent.load": make_agent(), "agent.start": CspError("start-failed", "agent: alpha: no program")}
    assert main(["add", "alpha", "--", "/nonexistent"]) == 1
    path = units / "alpha.toml"
    assert path.exists()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "warning: command: /nonexistent: not found from here; cspd may know another PATH"
    assert said[-1] == f"hint: {path} is kept: cspctl edit alpha, then cspctl start alpha"


def test_no_start_only_loads(cspd: Any, units: Path, make_agent: Make) -> None:
    cspd.answers["agent.load"] = make_agent(state="inactive")
    assert main(["add", "alpha", "--no-start", "--", "sh"]) == 0
    assert [method for method, _ in cspd.asked] == ["agent.load"]


def test_a_name_that_is_a_path_is_refused(units: Path, instance: Path) -> None:
    assert main(["add", "../alpha", "--", "sh"]) == 2
    assert main(["cat", "../../etc/passwd"]) == 2
    assert not units.exists()


def test_the_file_is_printed_as_it_is(existing: Path, capsys: Capture) -> None:
    assert main(["cat", "alpha"]) == 0
    assert tuple(capsys.readouterr()) == (existing.read_text(), f"# {existing}\n")
    assert main(["cat", "alfa"]) == NO_SUCH
    assert "did you mean 'alpha'?" in capsys.readouterr().err


def test_removing_is_cspds_work_while_it_runs(cspd: Any, existing: Path) -> None:
    cspd.answers["agent.remove"] = {}
    assert main(["remove", "alpha"]) == 0
    assert existing.exists()
    assert cspd.asked == [("agent.remove", {"name": "alpha"})]


@pytest.mark.parametrize("verb", ["enable", "disable"])
def test_of_several_files_none_is_changed_when_one_is_not_there(existing: Path, verb: str) -> None:
    before = existing.read_text()
    assert main([verb, "alpha", "nobody"]) == NO_SUCH
    assert existing.read_text() == before


def test_a_profile_that_cannot_be_read_is_refused_and_nothing_is_kept(units: Path, cspd: Any, capsys: Capture) -> None:
    folder = units.parent / "profiles"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text('colour = "red"\n')
    assert main(["add", "alpha", "--profile", "mine", "--", "sh"]) == 1
    assert "mine.toml: colour: unknown key" in capsys.readouterr().err
    assert (list(units.glob("*")), cspd.asked) == ([], [])


def test_a_directory_that_was_deleted_is_named(
    units: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["add", "alpha", "--", "sh"]) == 2
    assert "directory: the present one has been deleted" in capsys.readouterr().err


def test_several_are_removed_at_once_and_every_refusal_is_said(cspd: Any, capsys: Capture) -> None:
    cspd.answers["agent.remove"] = CspError("no-such-agent", "agent: not known")
    assert main(["remove", "alpha", "beta"]) == NO_SUCH
    assert cspd.asked == [("agent.remove", {"name": "alpha"}), ("agent.remove", {"name": "beta"})]
    assert capsys.readouterr().err.count("agent: not known") == 2


def test_of_several_files_none_is_deleted_when_one_is_not_there(existing: Path, capsys: Capture) -> None:
    assert main(["remove", "alpha", "nobody"]) == NO_SUCH
    assert existing.exists()
    assert "nobody" in capsys.readouterr().err


def test_removing_without_cspd_deletes_the_file(existing: Path) -> None:
    assert main(["remove", "alpha"]) == 0
    assert not existing.exists()
    assert main(["remove", "alpha"]) == NO_SUCH


def test_autostart_is_one_line_and_the_rest_stays(existing: Path, cspd: Any, make_agent: Make) -> None:
    cspd.answers["agent.load"] = make_agent()
    assert main(["disable", "alpha"]) == 0
    text = existing.read_text()
    assert tomllib.loads(text)["autostart"] is False
    assert "# mine" in text
    assert "# a shell" in text
    assert main(["enable", "alpha"]) == 0
    assert tomllib.loads(existing.read_text())["autostart"] is True
    assert [method for method, _ in cspd.asked] == ["agent.load"] * 2


def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> None:
    """An editor that is a Python program: `path` is the file to edit."""
    script = tmp_path / "editor.py"
    script.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{code}\n")
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")
    (tmp_path / "tmp").mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def test_an_edited_file_replaces_the_old_one_and_is_loaded(
    existing: Path, cspd: Any, make_agent: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    editor(monkeypatch, tmp_path, "path.write_text('command = [\"zsh\"]\\n')")
    cspd.answers["agent.load"] = make_agent()
    assert main(["edit", "alpha"]) == 0
    assert existing.read_text() == 'command = ["zsh"]\n'
    assert [method for method, _ in cspd.asked] == ["agent.load"]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "code", ["path.write_text('comand = 3')", "path.write_bytes(b'\\xff')", "path.write_text('x'); sys.exit(1)"]
)
def test_an_edit_that_is_wrong_changes_nothing_and_keeps_the_text(
    code: str, existing: Path, cspd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    before = existing.read_bytes()
    editor(monkeypatch, tmp_path, code)
    assert main(["edit", "alpha"]) == 1
    assert existing.read_bytes() == before
    assert cspd.asked == []
    (kept,) = (tmp_path / "tmp").glob("*/alpha.toml")
    assert f"hint: your text is kept in {kept}" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "status"), [("", 0), ("sys.exit(1)", 1), ("path.unlink()", 1)])
def test_an_edit_without_a_change_loads_nothing_and_leaves_nothing(
    code: str, status: int, existing: Path, cspd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture
) -> None:
    editor(monkeypatch, tmp_path, code)
    assert main(["edit", "alpha"]) == status
    assert cspd.asked == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "kept" not in capsys.readouterr().err


def test_an_editor_that_does_not_exist_is_named(
    existing: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("VISUAL", "/nonexistent/ed")
    assert main(["edit", "alpha"]) == 1
    assert "editor: /nonexistent/ed: no such file" in capsys.readouterr().err
