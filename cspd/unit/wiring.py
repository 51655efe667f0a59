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
from cspd.journal import about
from cspd.paths import Paths, make_private_dir
from cspd.profiles.find import find_profile
from cspd.profiles.wiring import Place, wire

log = logging.getLogger("cspd.unit")

# By its interpreter, because PATH is the agent's; -P: no module of the agent's directory is taken for ours.
HOOK = (sys.executable, "-P", "-m", "cspctl", "hook")


def wired(config: UnitConfig, paths: Paths) -> tuple[list[str], Mapping[str, str]]:
    """-> (the command with the wiring's arguments, its environment)."""
    command = list(config.command)
    if not config.wire:
        return command, {}
    folder = paths.wiring_dir(config.name)
    additions = wire(find_profile(config.profile, paths), command, Place(config.name, str(folder), HOOK))
    if additions.why_not:
        log.warning("%s: started without hooks: %s", config.name, additions.why_not, extra=about(agent=config.name))
    try:
        if additions.files:
            make_private_dir(paths.state)
            make_private_dir(folder.parent)
            make_private_dir(folder)
        for name, text in additions.files.items():
            _write(folder / name, text)
    except OSError as exc:
        log.error("%s: started without hooks: %s", config.name, exc, extra=about(agent=config.name))
        return command, {}
    return [*command, *additions.arguments], additions.environment


def _write(path: Path, text: str) -> None:
    """Whole or not at all: an agent that is just starting may be reading the one before."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        file.write(text)
    fresh.rename(path)


def forget_wiring(name: str, paths: Paths) -> None:
    """The agent was removed."""
    shutil.rmtree(paths.wiring_dir(name), ignore_errors=True)
