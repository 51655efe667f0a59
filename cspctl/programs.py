"""The programs that agents run: where they are, which version, and whether a profile was tested with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION_SEC = 10.0  # some of them start a second or two on a slow machine


def found(program: str, directory: str = "", search: str | None = None) -> str | None:
    """The file that would run; `directory` is where a relative path begins."""
    place = os.path.join(os.path.expanduser(directory), program) if "/" in program else program
    return shutil.which(place, path=search)


def version_of(path: str) -> str:
    """What `--version` says, of which only the number; "" when it says none."""
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=VERSION_SEC
        ).stdout
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    number = re.search(r"\d+(?:\.\d+)+[\w.+-]*", said)
    return number[0] if number else ""


def untested(program: str, version: str, tested: list[str]) -> str:
    """A sentence when this version is none of those, else ""."""
    if not version or not tested or version in tested:
        return ""
    return f"{program} {version}: its rules were tested with {', '.join(tested)}"


def doubts(agent: Mapping[str, Any]) -> str:
    """Why the profile of an agent may not fit its program; "" when nothing speaks against it."""
    if agent.get("profile_problem"):
        return str(agent["profile_problem"])
    if not agent["command"]:
        return ""  # a guest that is no program of this host
    program, tested = str(agent["command"][0]), agent.get("tested") or {}
    name = os.path.basename(program)
    if name not in tested.get("programs", ()) or not tested["versions"]:
        return ""  # nothing to compare with; and a program that the profile does not know is not run
    path = found(program, agent["working_directory"])
    return untested(name, version_of(path) if path else "", tested["versions"])
