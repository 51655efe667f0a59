"""Unit files on a real file system: whole or not at all, and a person's text kept."""

import stat
from pathlib import Path

import pytest

from cspd.configfile import ConfigError, read_unit
from cspd.errors import CspError
from cspd.paths import Paths
from cspd.unitfile import render_unit, set_autostart, write_unit

pytestmark = pytest.mark.real


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(runtime=tmp_path / "run", config=tmp_path / "config", state=tmp_path / "state")
    made.units_dir.mkdir(parents=True)
    return made


def test_a_rendered_unit_reads_back_and_keeps_plain_keys_above_tables(paths: Paths) -> None:
    document = {
        "restart": {"policy": "always"},
        "command": ["sh", "-c", 'echo "a b" \\ \n\x1b é'],
        "room": "den",
        "environment": {"A B": "1"},
    }
    text = render_unit(document)
    assert text.startswith('command = ["sh", "-c", "echo')
    write_unit(paths.unit_file("a"), text, replace=False)
    unit = read_unit(paths.unit_file("a"))
    assert list(unit.command) == document["command"]
    assert (unit.room, unit.restart.policy, unit.environment) == ("den", "always", {"A B": "1"})


def test_a_unit_file_is_private_and_not_overwritten_unless_asked(paths: Paths) -> None:
    file = paths.unit_file("a")
    write_unit(file, "one", replace=False)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(CspError) as caught:
        write_unit(file, "two", replace=False)
    assert caught.value.code == "exists"
    assert file.read_text() == "one"
    write_unit(file, "two", replace=True)
    assert file.read_text() == "two"
    assert [path.name for path in paths.units_dir.iterdir()] == ["a.toml"]


def test_a_failed_write_leaves_the_old_file_and_no_other(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    file = paths.unit_file("a")
    write_unit(file, "one", replace=False)

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CspError, match="No space left on device"):
        write_unit(file, "two", replace=True)
    with pytest.raises(CspError, match="cannot hold"):
        write_unit(file, "\udcff", replace=True)
    assert file.read_text() == "one"
    assert [path.name for path in paths.units_dir.iterdir()] == ["a.toml"]


def test_a_link_into_a_repository_of_dotfiles_stays_a_link(paths: Paths, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text('command = ["a"]\n')
    real.chmod(0o644)
    paths.unit_file("a").symlink_to(real)
    set_autostart(paths.unit_file("a"), False)
    assert paths.unit_file("a").is_symlink()
    assert "autostart = false\n" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            'command = ["a"]  # mine\nautostart   =  true # why\n[stop]\ntimeout_sec = 1\n',
            'command = ["a"]  # mine\nautostart   =  false # why\n[stop]\ntimeout_sec = 1\n',
        ),
        (
            '# top\ncommand = ["a"]\n\n# about stopping\n[stop]\ntimeout_sec = 1\n',
            '# top\ncommand = ["a"]\nautostart = false\n\n# about stopping\n[stop]\ntimeout_sec = 1\n',
        ),
        ('command = ["a"]', 'command = ["a"]\nautostart = false\n'),
        ('command = ["a"]\r\n[stop]\r\n', 'command = ["a"]\r\nautostart = false\r\n[stop]\r\n'),
        (
            'command = [\n"""\nautostart = true\n[x]\n""",\n]\n[stop]\n',
            'command = [\n"""\nautostart = true\n[x]\n""",\n]\nautostart = false\n[stop]\n',
        ),
        ('"autostart" = true\ncommand = ["a"]\n', '"autostart" = false\ncommand = ["a"]\n'),
        ('command = ["a"]\nautostart = false\n', 'command = ["a"]\nautostart = false\n'),
    ],
)
def test_autostart_changes_one_line_and_keeps_the_rest(paths: Paths, before: str, after: str) -> None:
    file = paths.unit_file("a")
    file.write_bytes(before.encode())
    set_autostart(file, False)
    assert file.read_bytes().decode() == after
    assert read_unit(file).autostart is False


def test_autostart_leaves_a_file_with_problems_alone(paths: Paths) -> None:
    file = paths.unit_file("a")
    for text in ('command = ["a"]\nautostart = "yes"\n', "command = [", "\ufeffx"):
        file.write_text(text)
        with pytest.raises(ConfigError):
            set_autostart(file, True)
        assert file.read_text() == text


def test_autostart_of_an_unknown_agent_says_so(paths: Paths) -> None:
    with pytest.raises(CspError) as caught:
        set_autostart(paths.unit_file("ghost"), True)
    assert (caught.value.code, caught.value.exit_status) == ("no-such-agent", 4)
