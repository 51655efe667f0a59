"""Finds profiles: the person's own files win over the shipped ones of the same name.

What stands in them is `read`'s to judge. A broken one is said in the log, and the default rules are used instead.
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
    for path in sorted(folder.glob("*.toml")) if folder.is_dir() else []:
        try:
            texts[path.stem] = path.read_text()
        except (OSError, UnicodeDecodeError) as exc:
            log.error("%s: %s", path, exc)
    return texts


def find_profile(name: str, paths: Paths) -> Profile:
    profile, problem = examine_profile(name, paths)
    if problem:
        log.error("%s", problem)
    return profile


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
