"""install and uninstall in directories of their own: what they write, and what they leave alone."""

import os
import re
import shlex
from pathlib import Path

import pytest

from cspctl import install, shipped
from cspctl.main import VERBS, Call
from cspd.errors import CspError

pytestmark = pytest.mark.real


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What systemctl was asked; it answers as where no unit is active."""
    calls: list[tuple[str, ...]] = []

    def systemctl(*words: str) -> int:
        calls.append(words)
        return 3 if words[0] == "is-active" else 0

    monkeypatch.setattr(install, "_systemctl", systemctl)
    return calls


def do(verb: str, *options: str) -> int:
    call = Call(verb)
    for option in options:
        call.add(option, "")
    return {"install": install.install, "uninstall": install.uninstall}[verb](call)


def files(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() or path.is_symlink()}


def test_everything_that_is_shipped_gets_its_place(home: Path) -> None:
    assert do("install") == 0
    there = files(home)
    assert {f".config/systemd/user/{name}" for name in install.UNITS} <= there
    assert {f".local/share/man/man{path.suffix[1:]}/{path.name}" for path in shipped.manuals()} <= there
    assert {".local/bin/cspd", ".local/bin/cspctl"} <= there
    assert {
        ".local/share/bash-completion/completions/cspctl",
        ".local/share/zsh/site-functions/_cspctl",
        ".local/share/fish/vendor_completions.d/cspctl.fish",
    } <= there


def test_the_list_of_units_is_the_list_of_files() -> None:
    assert {path.name for path in shipped.units()} == set(install.UNITS)


def test_units_start_the_program_that_installed_them_and_give_agents_this_path(home: Path) -> None:
    do("install")
    text = (home / ".config/systemd/user/cspd.service").read_text()
    for key, name in (("ExecStart", "cspd"), ("ExecReload", "cspctl")):
        program = re.search(rf"(?m)^{key}=(\S+)", text)
        assert program is not None
        assert os.access(program[1], os.X_OK)
        assert os.path.basename(program[1]) == name
    assert "\nEnvironment=PATH=/usr/bin:/bin\n" in text


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("/opt/csp/bin/cspd", "/opt/csp/bin/cspd"),
        ("/home/a b/cspd", '"/home/a b/cspd"'),
        ("/home/100%/cspd", "/home/100%%/cspd"),
        ('/x"y\\z', '"/x\\"y\\\\z"'),
    ],
)
def test_a_word_is_written_as_systemd_reads_it(word: str, expected: str) -> None:
    assert install.quoted(word) == expected


def test_uninstall_leaves_nothing_not_even_a_directory(home: Path, asked: list[tuple[str, ...]]) -> None:
    do("install")
    assert do("uninstall") == 0
    assert list(home.iterdir()) == []
    assert ("disable", "--quiet", *install.UNITS) in asked
    assert asked[-1] == ("daemon-reload",)


def test_uninstall_leaves_what_is_not_ours(home: Path) -> None:
    own = home / ".config/systemd/user/other.service"
    own.parent.mkdir(parents=True)
    own.write_text("[Service]\n")
    do("install")
    do("uninstall")
    assert files(home) == {".config/systemd/user/other.service"}


def test_a_second_install_is_quiet_and_a_changed_path_is_taken_up(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do("install")
    monkeypatch.setenv("PATH", "/opt/bin:/usr/bin:/bin")
    assert do("install") == 0
    assert "PATH=/opt/bin:" in (home / ".config/systemd/user/cspd.service").read_text()
    do("uninstall")
    assert list(home.iterdir()) == []


def test_a_file_of_somebody_else_is_named_and_nothing_at_all_is_done(home: Path) -> None:
    foreign = home / ".config/systemd/user/cspd.service"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    with pytest.raises(CspError, match=r"cspd\.service: there is a file that is not from install"):
        do("install")
    assert files(home) == {".config/systemd/user/cspd.service"}
    assert do("install", "force") == 0
    assert foreign.read_text() != "mine"


def test_a_file_that_was_changed_since_is_named_and_stays(home: Path) -> None:
    do("install")
    changed = home / ".config/systemd/user/cspd.service"
    changed.write_text(changed.read_text() + "# mine\n")
    with pytest.raises(CspError, match="changed since") as caught:
        do("install")
    assert len(caught.value.data["problems"]) == 1
    with pytest.raises(CspError, match=r"cspd\.service: changed since it was installed: left there"):
        do("uninstall")
    assert {name for name in files(home) if "installed.json" not in name} == {".config/systemd/user/cspd.service"}
    assert do("uninstall", "force") == 0
    assert list(home.iterdir()) == []


def test_uninstall_is_refused_while_a_unit_is_active(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do("install")
    before = files(home)
    monkeypatch.setattr(install, "_systemctl", lambda *words: 0)
    with pytest.raises(CspError, match="still active"):
        do("uninstall")
    assert files(home) == before


def test_uninstall_without_install_says_so(home: Path) -> None:
    with pytest.raises(CspError, match="nothing was installed"):
        do("uninstall")


def test_a_program_that_path_leads_to_gets_no_link(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = shipped.program_directory()
    elsewhere = home / "bin"
    elsewhere.mkdir()
    for name in shipped.PROGRAMS:
        (elsewhere / name).symlink_to(programs / name)
    monkeypatch.setenv("PATH", f"{elsewhere}:/usr/bin:/bin")
    do("install")
    assert not (home / ".local/bin").exists()


def test_completion_scripts_ask_a_verb_that_exists() -> None:
    for script in install.SCRIPTS.values():
        asking = next(line for line in script.splitlines() if "cspctl completion" in line)
        assert shlex.split(asking.partition("cspctl ")[2].partition(" --")[0])[0] in VERBS
