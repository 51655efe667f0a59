"""The person's own profiles: which files count, and what is said of broken ones."""

import logging
from pathlib import Path

import pytest

from cspd.paths import Paths
from cspd.profiles import find
from cspd.profiles.find import broken_profiles, find_profile

pytestmark = pytest.mark.real


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "run", tmp_path / "config", tmp_path / "state")
    made.profiles_dir.mkdir(parents=True)
    return made


def test_without_profiles_of_ones_own_nothing_is_broken(tmp_path: Path, paths: Paths) -> None:
    assert broken_profiles(paths) == []
    paths.profiles_dir.rmdir()
    assert broken_profiles(paths) == []


def test_every_problem_of_every_profile_is_a_line(paths: Paths) -> None:
    for name, text in {
        "good": 'extends = "claude"\n',
        "bad": 'colour = "red"\nextends = 5\n',
        "child": 'extends = "bad"\n',
        "syntax": "[[rule]\n",
        "orphan": 'extends = "nobody"\n',
    }.items():
        (paths.profiles_dir / f"{name}.toml").write_text(text)
    (paths.profiles_dir / "latin.toml").write_bytes(b"# \xe9\n")
    (paths.profiles_dir / ".#bad.toml").write_text("an editor's own")
    found = broken_profiles(paths)
    assert [line.split(":")[0] for line in found] == [
        *("profiles/bad.toml", "profiles/bad.toml", "profiles/latin.toml"),
        *("profiles/orphan.toml", "profiles/syntax.toml"),
    ]


def test_a_broken_profile_is_said_once_however_often_it_is_asked_for(
    paths: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    find._complain.cache_clear()
    (paths.profiles_dir / "mine.toml").write_text('colour = "red"\n')
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert find_profile("mine", paths).name == "default"
    (said,) = caplog.messages
    assert "colour" in said
    assert "the default profile is used" in said
