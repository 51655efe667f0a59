"""Where an instance lives, which names an agent may have, and that its directories are nobody else's."""

import os
import stat
from pathlib import Path

import pytest

from cspd.errors import CspError
from cspd.paths import RESERVED_NAMES, SUN_PATH_MAX, Paths, check_agent_name, check_socket_path, make_private_dir

XDG = {"XDG_RUNTIME_DIR": "/r", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s", "HOME": "/h"}


@pytest.mark.pure
def test_every_path_follows_from_the_three_xdg_variables() -> None:
    paths = Paths.from_environ(XDG)
    assert paths.control_socket == Path("/r/csp/cspd.sock")
    assert paths.keeper_socket == Path("/r/csp/keeper.sock")
    assert paths.agent_socket("bob") == Path("/r/csp/agents/bob.sock")
    assert {path.parent for path in paths.black_box("bob")} == {paths.agents_dir}
    assert paths.daemon_file == Path("/c/csp/cspd.toml")
    assert paths.unit_file("bob") == Path("/c/csp/agents/bob.toml")
    assert paths.history_db == Path("/s/csp/history.db")


@pytest.mark.pure
def test_without_the_variables_the_defaults_of_the_xdg_specification_count() -> None:
    paths = Paths.from_environ({"HOME": "/h"})
    assert paths.config == Path("/h/.config/csp")
    assert paths.state == Path("/h/.local/state/csp")
    assert str(os.getuid()) in str(paths.runtime)


@pytest.mark.pure
def test_an_empty_variable_counts_as_unset() -> None:
    empty = dict.fromkeys(XDG, "") | {"HOME": "/h"}
    assert Paths.from_environ(empty) == Paths.from_environ({"HOME": "/h"})


@pytest.mark.pure
def test_a_relative_variable_is_ignored_as_the_specification_says() -> None:
    relative = dict.fromkeys(XDG, "run/me") | {"HOME": "/h"}
    assert Paths.from_environ(relative) == Paths.from_environ({"HOME": "/h"})


@pytest.mark.pure
def test_a_path_that_the_kernel_would_refuse_is_refused_with_both_numbers() -> None:
    check_socket_path("/" + "x" * (SUN_PATH_MAX - 1))
    with pytest.raises(CspError, match="108 bytes: the kernel allows 107"):
        check_socket_path("/" + "é" * 53 + "x")


@pytest.mark.pure
def test_no_two_things_of_an_agent_share_a_file() -> None:
    paths = Paths.from_environ(XDG)
    assert len({paths.agent_socket("bob"), *paths.black_box("bob")}) == 4


@pytest.mark.pure
def test_the_longest_name_fits_a_socket_address_in_the_usual_runtime_directory() -> None:
    paths = Paths.from_environ({"XDG_RUNTIME_DIR": "/run/user/4294967295"})
    assert len(str(paths.agent_socket("n" * 32))) <= SUN_PATH_MAX


@pytest.mark.pure
@pytest.mark.parametrize("name", ["a", "claude", "claude-2", "0", "a_b", "n" * 32])
def test_a_good_name_is_given_back(name: str) -> None:
    assert check_agent_name(name) == name


@pytest.mark.pure
@pytest.mark.parametrize(
    "name", ["", "-a", "_a", "A", "a b", "a/b", "..", "n" * 33, "a\n", "é", *sorted(RESERVED_NAMES)]
)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(CspError) as raised:
        check_agent_name(name)
    assert raised.value.code == "bad-name"
    assert repr(name) in raised.value.sentence


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.real
def test_a_private_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    make_private_dir(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700


@pytest.mark.real
def test_a_directory_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private_dir(tmp_path)
    assert mode(tmp_path) == 0o700


@pytest.mark.real
def test_a_directory_that_cannot_be_made_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CspError, match="file/csp: Not a directory") as raised:
        make_private_dir(tmp_path / "file" / "csp")
    assert raised.value.code == "storage"


@pytest.mark.real
def test_somebody_elses_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(CspError) as raised:
        make_private_dir(tmp_path)
    assert raised.value.code == "not-private"
