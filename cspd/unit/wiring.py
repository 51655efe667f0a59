"""Carries out a profile's wiring before a spawn: writes its files, and gives the command and environment with it.

What is added is `profiles.wiring`'s to decide. An agent whose wiring fails is started without it: the screen tells the
same, a little later.
"""

import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from cspd.config import UnitConfig
from cspd.errors import CspError
from cspd.journal import about
from cspd.paths import Paths, make_private_dir
from cspd.profiles.find import find_profile
from cspd.profiles.wiring import Place, to_do_once, wire

log = logging.getLogger("cspd.unit")

# By its interpreter, because PATH is the agent's; -P: no module of the agent's directory is taken for ours.
CSPCTL = (sys.executable, "-P", "-m", "cspctl")


def place_of(config: UnitConfig, paths: Paths) -> Place:
    shared = paths.shared_wiring_dir(config.profile)
    home = config.environment.get("HOME") or os.path.expanduser("~")
    return Place(config.name, str(paths.wiring_dir(config.name)), CSPCTL, str(shared), home)


def wired(config: UnitConfig, paths: Paths) -> tuple[list[str], Mapping[str, str]]:
    """-> (the command with the wiring's arguments, its environment)."""
    command = list(config.command)
    if not config.wire:
        return command, {}
    additions = wire(find_profile(config.profile, paths), command, place_of(config, paths))
    if additions.why_not:
        why = additions.why_not
        log.warning("%s: started without hooks and tools: %s", config.name, why, extra=about(agent=config.name))
    try:
        if additions.files:
            make_private_dir(paths.state)
        for path, text in additions.files.items():
            _write(Path(path), text, paths.state)
    except (OSError, CspError) as exc:
        log.error("%s: started without hooks and tools: %s", config.name, exc, extra=about(agent=config.name))
        return command, {}
    if advice := wiring_advice(config, paths):
        log.warning("%s: %s", config.name, advice)
    return [*command, *additions.arguments], additions.environment


def wiring_advice(config: UnitConfig, paths: Paths) -> str:
    """What the person should still do once, so that this agent has hooks and tools; empty when nothing."""
    if not config.wire:
        return ""
    place = place_of(config, paths)
    command, sign = to_do_once(find_profile(config.profile, paths), place)
    if not command or Path(sign).exists() or not Path(place.shared).exists():
        return ""
    return f"it has neither hooks nor tools yet: run this once, then restart it: {command}"


def _write(path: Path, text: str, state: Path) -> None:
    """Whole or not at all: an agent that is just starting may be reading the one before."""
    for folder in reversed(path.relative_to(state).parents[:-1]):
        make_private_dir(state / folder)
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        file.write(text)
    fresh.rename(path)


def forget_wiring(name: str, paths: Paths) -> None:
    """The agent was removed."""
    shutil.rmtree(paths.wiring_dir(name), ignore_errors=True)
