"""Finds profiles: the person's own files win over the shipped ones of the same name.

What stands in them is `read`'s to judge. A broken one is said in the log, once, and the default rules are used instead.
"""

import logging
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

from cspd.errors import CspError
from cspd.paths import Paths
from cspd.profiles.profile import Profile
from cspd.profiles.read import read_profile

log = logging.getLogger("csp.profiles")

SHIPPED = Path(__file__).parent


def profile_texts(paths: Paths) -> dict[str, str]:
    """Every profile's text by its name."""
    return {**_shipped(), **_texts_in(paths.profiles_dir)}


@cache
def _shipped() -> Mapping[str, str]:
    """Those that this program came with; what an upgrade brings is for the program that comes with it."""
    return _texts_in(SHIPPED)


def _texts_in(folder: Path) -> dict[str, str]:
    texts = {}
    for path in _files(folder):
        try:
            texts[path.stem] = path.read_text()
        except (OSError, UnicodeDecodeError) as exc:
            _complain(f"{path}: {exc}")
    return texts


def _files(folder: Path) -> list[Path]:
    """Without hidden ones, which are editors' own."""
    found = folder.glob("*.toml") if folder.is_dir() else []
    return sorted(path for path in found if not path.name.startswith("."))


def broken_profiles(paths: Paths) -> list[str]:
    """What is wrong with the person's own profiles; each is a line."""
    problems: list[str] = []
    texts = profile_texts(paths)
    for path in _files(paths.profiles_dir):
        try:
            _read(path.stem, tuple({**texts, path.stem: path.read_text()}.items()))
        except CspError as exc:
            problems += exc.data.get("problems") or [exc.sentence]
        except (OSError, UnicodeDecodeError) as exc:
            problems.append(f"{path.name}: cannot be read: {exc}")
    return [f"{paths.profiles_dir.name}/{problem}" for problem in dict.fromkeys(problems)]


def check_profile(name: str, paths: Paths) -> None:
    """Raises what `read_profile` does."""
    _read(name, tuple(profile_texts(paths).items()))


def find_profile(name: str, paths: Paths) -> Profile:
    profile, problem = examine_profile(name, paths)
    if problem:
        _complain(problem)
    return profile


@lru_cache(maxsize=256)
def _complain(problem: str) -> None:
    """Once: a profile is asked for at each start of an agent, and by several parts of cspd."""
    log.error("%s", problem)


def examine_profile(name: str, paths: Paths) -> tuple[Profile, str]:
    """The profile that counts, and why it is not the one of this name, or ""."""
    try:
        return _read(name, tuple(profile_texts(paths).items())), ""
    except CspError as exc:
        default = read_profile("default", {"default": _shipped()["default"]})
        return default, f"{exc}: the default profile is used"


@lru_cache(maxsize=32)
def _read(name: str, texts: tuple[tuple[str, str], ...]) -> Profile:
    """Once for as long as the files say the same; a sidecar finds those of before its fork read already."""
    return read_profile(name, dict(texts))
