"""What doctor finds in a made-up home, and what logs and status say of programs and journals."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cspctl import doctor, logs, programs
from cspctl.main import Call
from cspd.errors import FAILED

pytestmark = pytest.mark.real

Examine = Callable[[], tuple[int, str]]  # doctor's exit status and what it printed


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_CONFIG_HOME", "config"), ("XDG_STATE_HOME", "state")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CSP_SOCKET", raising=False)
    return folder


def put_program(folder: Path, name: str, version: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)


def put_agent(home: Path, name: str, text: str) -> None:
    folder = home / "config/csp/agents"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(text)


@pytest.fixture
def look(bin_dir: Path, capsys: pytest.CaptureFixture[str]) -> Examine:
    def run() -> tuple[int, str]:
        status = doctor.doctor(Call("doctor"))
        return status, capsys.readouterr().out

    return run


def test_a_cspd_that_does_not_run_is_a_problem_with_advice(look: Examine) -> None:
    status, text = look()
    assert status == FAILED
    assert "problem  cspd: " in text
    assert "-> systemctl --user start cspd" in text


def test_versions_that_no_profile_was_tested_with_are_named(look: Examine, bin_dir: Path) -> None:
    put_program(bin_dir, "claude", "2.1.330 (Claude Code)")
    put_program(bin_dir, "codex", "codex-cli 9.9.9")
    _, text = look()
    assert f"ok  claude 2.1.330: {bin_dir}/claude" in text
    assert "warning  codex 9.9.9: its rules were tested with 0.169.0" in text
    assert "codex's sandbox lets no command" in text
    assert "note  gemini: not installed" in text


def test_broken_files_and_missing_programs_are_all_named_at_once(look: Examine, tmp_path: Path) -> None:
    put_agent(tmp_path, "a", 'command = ["no-such-program"]\n')
    put_agent(tmp_path, "b", "comand = 1\n")
    (tmp_path / "config/csp/profiles").mkdir()
    (tmp_path / "config/csp/profiles/mine.toml").write_text("rulez = 1\n")
    put_agent(tmp_path, "c", 'command = ["cat"]\nprofile = "mine"\nworking_directory = "/no/such"\n')
    _, text = look()
    assert "problem  a: no-such-program: not found where cspd looks" in text
    assert "comand" in text
    assert text.count("rulez") == 1
    assert "problem  c: its profile mine cannot be read" in text
    assert "problem  c: working_directory: /no/such: no such directory" in text
    assert "ok  c" not in text


def test_the_wiring_of_each_agent_is_said(look: Examine, tmp_path: Path, bin_dir: Path) -> None:
    put_program(bin_dir, "claude", "2.1.330")
    put_agent(tmp_path, "wired", 'command = ["claude"]\n')
    put_agent(tmp_path, "off", 'command = ["claude"]\nwire = false\n')
    put_agent(tmp_path, "own", 'command = ["claude", "--", "x"]\n')
    put_agent(tmp_path, "cat", 'command = ["cat"]\n')
    _, text = look()
    assert "wired: claude, hooks and tools are added" in text
    assert "off: claude, hooks are switched off (wire = false)" in text
    assert "own: claude -- x, no hooks: the command has '--' already" in text
    assert "cat: cat, read from its screen only" in text


def test_agents_are_looked_for_in_the_path_of_the_unit(look: Examine, tmp_path: Path, bin_dir: Path) -> None:
    put_program(bin_dir, "mytool", "1.0")
    put_agent(tmp_path, "a", 'command = ["mytool"]\n')
    unit = tmp_path / "config/systemd/user/cspd.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nEnvironment=PATH=/usr/bin\n")
    _, text = look()
    assert "problem  a: mytool: not found where cspd looks for programs" in text
    assert f"warning  {unit}: differs" in text


def test_open_directories_relative_variables_and_long_paths_are_said(
    look: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run/csp").mkdir(mode=0o755)
    os.chmod(tmp_path / "run/csp", 0o755)
    monkeypatch.setenv("XDG_STATE_HOME", "relative/state")
    _, text = look()
    assert f"warning  {tmp_path}/run/csp: others may look in (mode 755)\n         -> chmod 700" in text
    assert "XDG_STATE_HOME: relative/state: not absolute: ignored" in text
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/run/{'x' * 100}")
    _, text = look()
    assert "the kernel allows 107" in text


def test_json_has_what_people_read(bin_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = Call("doctor")
    call.add("json", "")
    doctor.doctor(call)
    assert '"level": "problem", "what": "cspd: ' in capsys.readouterr().out


# ---------------------------------------------------------------------- versions in status


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("2.1.330 (Claude Code)", "2.1.330"),
        ("codex-cli 0.169.0", "0.169.0"),
        ("tool v1.2.3-beta.1+x", "1.2.3-beta.1+x"),
        ("no number", ""),
    ],
)
def test_the_number_is_found_in_what_a_program_says(bin_dir: Path, said: str, version: str) -> None:
    put_program(bin_dir, "tool", said)
    assert programs.version_of(str(bin_dir / "tool")) == version


def agent(**changed: Any) -> dict[str, Any]:
    tested = {"programs": ["claude"], "versions": ["2.1.330"]}
    about = {"command": ["claude"], "working_directory": "/", "profile_problem": "", "tested": tested}
    return {**about, **changed}


def test_status_says_when_a_profile_may_not_fit(bin_dir: Path) -> None:
    put_program(bin_dir, "claude", "3.0.0")
    assert programs.doubts(agent()) == "claude 3.0.0: its rules were tested with 2.1.330"
    put_program(bin_dir, "claude", "2.1.330")
    assert programs.doubts(agent()) == ""
    assert programs.doubts(agent(profile_problem="profile: 'x': not known")) == "profile: 'x': not known"
    assert programs.doubts(agent(command=["bash"])) == "", "a program that the profile does not know is not run"


def test_the_journal_is_asked_for_the_units_or_for_one_agent() -> None:
    asked = logs.journal_command(None, 50, follow=False, as_json=False)
    assert {"SYSLOG_IDENTIFIER=cspd", "USER_UNIT=csp-keeper.service", f"_UID={os.getuid()}"} <= set(asked)
    asked = logs.journal_command("claude", 5, follow=True, as_json=True)
    assert asked[0] == "journalctl"
    assert {"--follow", "--lines=5", "--output=json", "AGENT=claude"} <= set(asked)
