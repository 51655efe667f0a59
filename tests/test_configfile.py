"""Configuration files on a real file system: every problem at once, and a person's text kept."""

import os
from pathlib import Path

import pytest

from cspd.config import DaemonConfig, GatewayConfig, RoomConfig
from cspd.configfile import (
    ConfigError,
    load_all,
    read_daemon,
    read_unit,
)
from cspd.paths import Paths

pytestmark = pytest.mark.real

WHOLE_UNIT = """\
command = ["claude", "--model", "opus"]
profile = "claude"
working_directory = "/srv/app"
room = "lobby"
autostart = true
environment = { EDITOR = "vim" }
[restart]
policy = "always"
delay_sec = 2
backoff_factor = 2.0
delay_max_sec = 60.0
limit_burst = 5
limit_interval_sec = 60.0
[stop]
signal = "SIGHUP"
timeout_sec = 10.0
[deliver]
template = "[Context: {from} sent a message]\\n{content}"
expire_sec = 86400.0
[share]
input = true
keywords = false
[terminal]
columns = 100
rows = 40
scrollback_lines = 10000
"""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(runtime=tmp_path / "run", config=tmp_path / "config", state=tmp_path / "state")
    made.units_dir.mkdir(parents=True)
    return made


def problems_of(path: Path, text: str, profiles: set[str] | None = None) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_unit(path, profiles)
    return [problem.removeprefix(f"{path.parent.name}/{path.name}: ") for problem in caught.value.problems]


def test_every_documented_key_is_read(paths: Paths) -> None:
    file = paths.unit_file("alice")
    file.write_text(WHOLE_UNIT)
    unit = read_unit(file)
    assert unit.name == "alice"
    assert unit.command == ("claude", "--model", "opus")
    assert unit.working_directory == Path("/srv/app")
    assert unit.environment == {"EDITOR": "vim"}
    assert (unit.restart.policy, unit.restart.delay_sec) == ("always", 2.0)
    assert type(unit.restart.delay_sec) is float
    assert (unit.stop.signal, unit.share.keywords, unit.terminal.columns) == ("SIGHUP", False, 100)


def test_all_problems_of_all_files_are_reported_at_once(paths: Paths) -> None:
    paths.daemon_file.write_text('[gateway]\nlisten = 8080\n[log]\nlevel = "inf"\n[rooms.all]\ntopic = ""\n')
    paths.unit_file("x").write_text(
        'command = "claude"\nautostrat = true\n[restart]\npolicy = "allways"\n[stop]\nsignal = "SIGTRM"\n'
    )
    paths.unit_file("y").write_text('command = ["a", 5]\nenvironment = {A = 1, "B C" = 2, CSP_X = "1"}\n')
    paths.unit_file("z").write_text('command = [\n  "a" b\n]\n')
    (paths.units_dir / "Foo Bar.toml").write_text('command = ["a"]\n')
    paths.unit_file("dir").mkdir()
    paths.unit_file("good").write_text('command = ["a"]\n')
    with pytest.raises(ConfigError) as caught:
        load_all(paths)
    policies = "'no', 'on-success', 'on-failure', 'on-abnormal', 'always'"
    syntax = [problem for problem in caught.value.problems if problem.startswith("agents/z.toml")]
    assert [problem for problem in caught.value.problems if problem not in syntax] == [
        "cspd.toml: gateway.listen: got 8080, expected a string",
        "cspd.toml: log.level: got 'inf', expected one of 'debug', 'info', 'warning', 'error' (did you mean 'info'?)",
        "cspd.toml: rooms.all: got 'all', but this word has a meaning of its own; choose another name",
        "agents/Foo Bar.toml: the file's name is the agent's name: got 'Foo Bar', "
        "expected 1 to 32 of a-z 0-9 _ -, beginning with a letter or digit",
        "agents/dir.toml: not a regular file",
        "agents/x.toml: autostrat: unknown key (did you mean 'autostart'?)",
        "agents/x.toml: command: got 'claude', expected an array",
        f"agents/x.toml: restart.policy: got 'allways', expected one of {policies} (did you mean 'always'?)",
        "agents/x.toml: stop.signal: got 'SIGTRM', expected the name of a signal (did you mean 'SIGTERM'?)",
        "agents/y.toml: command[1]: got 5, expected a string",
        "agents/y.toml: environment.A: got 1, expected a string",
        'agents/y.toml: environment."B C": got 2, expected a string',
        "agents/y.toml: environment.CSP_X: CSP sets this variable itself",
    ]
    assert len(syntax) == 1
    assert "not TOML" in syntax[0]
    assert "(at line 2, column 7)" in syntax[0]
    assert caught.value.code == "bad-configuration"
    assert caught.value.exit_status == 1
    assert caught.value.sentence == "configuration: 14 problems"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "command: required, but missing"),
        ('command = ["a"]\nautostart = "false"', "autostart: got 'false', expected true or false"),
        ('command = ["a"]\nautostart = 1', "autostart: got 1, expected true or false"),
        ('command = ["a"]\nrestart = "always"', "restart: got 'always', expected a table"),
        ('command = ["a"]\nrestart.delay_sec = true', "restart.delay_sec: got True, expected a number"),
        (
            'command = ["a"]\nrestart.delay_sec = nan',
            "restart.delay_sec: got nan, expected a number of ordinary size",
        ),
        (
            'command = ["a"]\nstop.timeout_sec = inf',
            "stop.timeout_sec: got inf, expected a number of ordinary size",
        ),
        ('command = ["a"]\nrestart.limit_burst = 5.0', "restart.limit_burst: got 5.0, expected an integer"),
        ('command = ["a"]\nterminal.rows = true', "terminal.rows: got True, expected an integer"),
        ('command = ["a"]\nterminal.columns = 1', "terminal.columns: got 1, expected 2 to 1000"),
        (
            'command = ["a"]\n[restart]\ndelay_sec = 9\ndelay_max_sec = 3',
            "restart.delay_max_sec: got 3.0, expected delay_sec (9.0) or more",
        ),
        ('command = ["a"]\nname = "b"', "name: unknown key (the file's name is the agent's name)"),
        (
            'command = ["a"]\nworking_directory = "src"',
            "working_directory: got 'src', expected an absolute path or one below '~'",
        ),
        ('command = ["a"]\nprofile = 5', "profile: got 5, expected a string"),
        (
            'command = ["a"]\nprofile = "cluade"',
            "profile: got 'cluade', expected one of 'claude', 'default' (did you mean 'claude'?)",
        ),
        (
            "command = []",
            "command: got [], expected a program and its arguments",
        ),
    ],
)
def test_a_wrong_value_is_reported_once_with_its_place(paths: Paths, text: str, problem: str) -> None:
    assert problems_of(paths.unit_file("a"), text, {"claude", "default"}) == [problem]


def test_numbers_beyond_reason_are_problems_and_not_crashes(paths: Paths) -> None:
    huge = "9" * 400
    text = f'command = ["a"]\n[restart]\ndelay_sec = {huge}\nlimit_burst = {huge}\n'
    assert len(problems_of(paths.unit_file("a"), text)) == 2
    assert "not TOML" in problems_of(paths.unit_file("a"), f"terminal.rows = {'9' * 5000}")[0]
    assert "not TOML" in problems_of(paths.unit_file("a"), "command = " + "[" * 100_000)[0]


def test_bytes_that_are_not_utf8_are_a_problem(paths: Paths) -> None:
    file = paths.unit_file("a")
    file.write_bytes(b'command = ["\xff"]')
    with pytest.raises(ConfigError, match="not UTF-8: byte 0xff at offset 12"):
        read_unit(file)


def test_a_fifo_is_a_problem_and_does_not_block(paths: Paths) -> None:
    os.mkfifo(paths.unit_file("a"))
    with pytest.raises(ConfigError, match="not a regular file"):
        load_all(paths)


def test_a_dangling_link_is_a_problem(paths: Paths) -> None:
    paths.unit_file("a").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"agents/a\.toml: cannot be read: no such file"):
        load_all(paths)


def test_other_files_and_editor_backups_are_ignored(paths: Paths) -> None:
    for name in ("a.toml~", ".a.toml.swp", "#a.toml#", ".#a.toml", "notes.txt", "a.toml.bak"):
        (paths.units_dir / name).write_text("not TOML at all")
    assert load_all(paths) == (DaemonConfig(), {})


def test_nothing_configured_is_all_defaults(tmp_path: Path) -> None:
    paths = Paths(runtime=tmp_path / "r", config=tmp_path / "c", state=tmp_path / "s")
    assert load_all(paths) == (DaemonConfig(), {})
    assert read_daemon(paths.daemon_file) == DaemonConfig()


def test_the_daemon_file_is_read(paths: Paths) -> None:
    paths.daemon_file.write_text('gateway.listen = ""\n[rooms.lobby]\ntopic = "hello"\n')
    daemon = read_daemon(paths.daemon_file)
    assert daemon.gateway == GatewayConfig("")
    assert daemon.rooms == {"lobby": RoomConfig("hello")}


def test_a_profile_of_the_person_counts_as_known(paths: Paths) -> None:
    paths.unit_file("a").write_text('command = ["x"]\nprofile = "mine"\n')
    with pytest.raises(ConfigError, match="profile: got 'mine'"):
        load_all(paths)
    paths.profiles_dir.mkdir()
    (paths.profiles_dir / "mine.toml").write_text("")
    assert load_all(paths)[1]["a"].profile == "mine"
