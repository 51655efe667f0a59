"""Verbs about unit files: add, remove, print, edit them, and their line `autostart`.

Files are also written without cspd, with the same strict check that cspd makes; with it, it reads them at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cspctl import output
from cspctl.client import reach
from cspctl.output import answer, say
from cspd.errors import CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.main import Call


def _unit_file(name: str) -> Path:
    from cspd.paths import Paths, check_agent_name

    return Paths.from_environ(os.environ).unit_file(check_agent_name(name))


def _existing(name: str) -> Path:
    """The unit file, or `no-such-agent` with the nearest name."""
    path = _unit_file(name)
    if not path.exists():
        known = [file.stem for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        others = f"there are: {', '.join(sorted(known))}" if known else f"cspctl add {name} -- COMMAND"
        raise CspError("no-such-agent", f"agent: {name}: no file {path}", nearest(name, known) or others)
    return path


def add(call: Call) -> int:
    """Never overwrites a unit file. The agent works in the present directory unless --cwd DIR says another.

    POLICY is no, on-success, on-failure, on-abnormal or always. Without cspd the file is written, and the
    agent starts when cspd does. When only the start fails, the file is kept.
    """
    if call.flag("start") and call.flag("no-start"):
        raise CspError("usage", "add: --start and --no-start: only one of them", "cspctl help add")
    from cspd.unitfile import render_unit, write_unit

    name = call.words[0]
    path = _unit_file(name)
    if path.exists():
        raise CspError(
            "exists",
            f"agent: {name}: {path} is there already",
            f"cspctl edit {name}, or cspctl remove {name}",
        )
    _warn_unless_found(call.command[0], _working_directory(call))
    write_unit(path, render_unit(_document(call)), replace=False)
    try:
        _check(path)
        loaded = _load(call, name, "the agent starts with it")
    except CspError:
        path.unlink()  # a file that is refused would make every later reload fail
        raise
    if loaded and not call.flag("no-start"):
        try:
            loaded = call.ask("agent.start", {"name": name, "wait": True}, None)
        except CspError as problem:
            raise _again(problem, f"{path} is kept: cspctl edit {name}, then cspctl start {name}") from problem
    if loaded:
        say(output.standing(loaded))
    return answer(call.json, loaded)


def _check(path: Path) -> None:
    """The strict check that cspd makes, and that its profile can be read; raises CspError with every problem."""
    from cspd.configfile import known_profiles, read_unit
    from cspd.paths import Paths
    from cspd.profiles.find import check_profile

    paths = Paths.from_environ(os.environ)
    check_profile(read_unit(path, known_profiles(paths)).profile, paths)


def _again(problem: CspError, hint: str) -> CspError:
    """The same problem, with what can be done about it here."""
    return CspError(problem.code, problem.sentence, hint, problem.data)


def _load(call: Call, name: str, otherwise: str) -> Any:
    """Let cspd read the unit file: the agent, or None with a word about it when there is no cspd."""
    cspd = reach(call.socket)
    if cspd is None:
        say(f"{name}: cspd is not running; {otherwise}")
        return None
    with cspd:
        return cspd.call("agent.load", {"name": name})


def _working_directory(call: Call) -> str:
    """Absolute; `~` stays as it was written, for unit files that move between machines."""
    given = call.value("cwd") or "."
    try:
        return given if given.startswith("~") else os.path.abspath(given)
    except FileNotFoundError:
        raise CspError(
            "usage", "directory: the present one has been deleted", "cd to another one, or --cwd DIR"
        ) from None


def _document(call: Call) -> dict[str, Any]:
    delay = call.number("restart-sec")
    # delay_max_sec is 60 s unless it is given, and may not be less than delay_sec
    longest = delay if delay is not None and delay > 60.0 else None
    restart = {"policy": call.value("restart"), "delay_sec": delay, "delay_max_sec": longest}
    document = {
        "command": call.command,
        "profile": call.value("profile"),
        "working_directory": _working_directory(call),
        "room": call.value("room"),
        "restart": {key: value for key, value in restart.items() if value is not None} or None,
    }
    return {key: value for key, value in document.items() if value is not None}


def _warn_unless_found(program: str, directory: str) -> None:
    from shutil import which

    inside = os.path.join(os.path.expanduser(directory), program) if "/" in program else program
    if which(inside) is None:
        say(f"warning: command: {program}: not found from here; cspd may know another PATH")


def remove(call: Call) -> int:
    """The history keeps what an agent has said, and its recordings stay."""
    from cspctl.units import raise_all

    names = list(dict.fromkeys(call.words))
    cspd = reach(call.socket)
    if cspd is None:
        for path in [_existing(name) for name in names]:
            path.unlink()
            say(f"{path.stem}: removed {path}; cspd is not running")
        return 0
    with cspd:
        _, problems = cspd.each("agent.remove", [{"name": name} for name in names])
    raise_all(problems)
    return 0


def cat(call: Call) -> int:
    """The file as it is on disk; its path goes to stderr."""
    path = _existing(call.words[0])
    say(f"# {path}")
    sys.stdout.write(path.read_text(encoding="utf-8", errors="replace"))
    return 0


def edit(call: Call) -> int:
    """The editor works on a copy, which replaces the file only when it is right; else the copy is kept."""
    import shlex
    import shutil
    import subprocess
    import tempfile

    name = call.words[0]
    path = _existing(name)
    copy = Path(tempfile.mkdtemp(prefix="cspctl-edit-")) / path.name
    shutil.copyfile(path, copy)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    keep = False
    try:
        status = subprocess.run([*shlex.split(editor), str(copy)]).returncode
        keep = copy.read_bytes() != path.read_bytes()
        if status != 0:
            kept = f"your text is kept in {copy}" if keep else ""
            raise CspError("editor", f"editor: {editor}: exit status {status}: {path} is unchanged", kept)
        if not keep:
            say(f"{name}: unchanged")
            return 0
        _take_edited(copy, path)
        keep = False
    except OSError as exc:
        raise CspError(
            "editor", f"editor: {editor}: {(exc.strerror or str(exc)).lower()}", "set VISUAL or EDITOR"
        ) from exc
    finally:
        if not keep:
            shutil.rmtree(copy.parent)
    agent = _load(call, name, "it reads the file when it starts")
    if agent and agent["state"] == "running":
        say(f"{name}: the running agent changes with cspctl restart {name}")
    return 0


def _take_edited(copy: Path, path: Path) -> None:
    """Put the copy in the file's place; raises CspError when it is not right."""
    from cspd.unitfile import write_unit

    try:
        _check(copy)
        write_unit(path, copy.read_text(encoding="utf-8"), replace=True)
    except CspError as problem:
        raise _again(problem, f"your text is kept in {copy}") from problem


def enable(call: Call) -> int:
    """Changes only the `autostart` line of the unit file; starts nothing now."""
    return _set_autostart(call, True)


def disable(call: Call) -> int:
    """Changes only the `autostart` line of the unit file; stops nothing now."""
    return _set_autostart(call, False)


def _set_autostart(call: Call, value: bool) -> int:
    from cspd.unitfile import set_autostart

    for name, path in [(name, _existing(name)) for name in call.words]:  # all of them, or none
        set_autostart(path, value)
        _load(call, name, "it reads the file when it starts")
    return 0
