"""Puts systemd units, manuals, completion and links to the programs into the person's directories, and takes them away.

A list of what was put where, with its digest, is kept: so a file that the person has changed since, or that was never
ours, is neither replaced nor removed without --force. Nothing is enabled or started here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from cspctl import shipped
from cspctl.client import reach
from cspctl.completion import SCRIPTS
from cspctl.output import answer, say
from cspd.errors import CspError
from cspd.paths import Paths, absolute

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cspctl.main import Call

UNITS = ("cspd.service", "cspd.socket", "cspd-gateway.socket", "csp-keeper.service", "csp.target")
SYSTEMCTL_SEC = 30.0
LINK = "-> "  # begins the digest of a symbolic link
Marks = dict[str, str]  # path -> digest


def install(call: Call) -> int:
    """The units get the path of this cspd, and this shell's PATH for the agents. Run it again after an upgrade.

    When a file there is not ours, or was changed since, nothing is done at all; --force replaces such files.
    """
    wanted = wanted_files()
    known = read_list(list_file())
    strange = [path for path in wanted if not _ours(path, known) and mark_of(path) != digest(wanted[path])]
    if strange and not call.flag("force"):
        raise CspError(
            "not-ours",
            f"install: {strange[0]}: there is a file that is not from install, or was changed since",
            "look at it; --force replaces it",
            {"problems": [f"{path}: not ours, or changed since" for path in strange]},
        )
    obsolete = [path for path in known if path not in wanted and _ours(path, known)]
    directories = _made_directories(list_file())
    for path, content in wanted.items():
        directories += [made for made in _put(Path(path), content) if made not in directories]
    directories += _missing(list_file())
    for path in obsolete:
        Path(path).unlink(missing_ok=True)
    write_list(list_file(), {path: digest(content) for path, content in wanted.items()}, directories)
    answer(call.json, list(wanted), "\n".join(wanted))
    _advise(call, _systemctl("daemon-reload") == 0)
    return 0


def uninstall(call: Call) -> int:
    """Removes exactly what install has put there. Agents' files, history and settings stay.

    A file that was changed since stays, and is named; --force removes it too. Refused while the units are active.
    """
    known = read_list(list_file())
    if not known:
        raise CspError("not-installed", f"uninstall: {list_file()}: no such list: nothing was installed here")
    active = [unit for unit in UNITS if _systemctl("is-active", "--quiet", unit) == 0]
    if active and not call.flag("force"):
        raise CspError("still-active", f"uninstall: {active[0]}: still active", "systemctl --user stop cspd csp-keeper")
    _systemctl("disable", "--quiet", *(unit for unit in UNITS if unit_path(unit) in known))
    kept = {path: mark for path, mark in known.items() if not _ours(path, known) and mark_of(path)}
    if call.flag("force"):
        kept = {}
    gone = [path for path in known if path not in kept and mark_of(path)]
    for path in gone:
        Path(path).unlink()
    made = _made_directories(list_file())
    list_file().unlink()
    left = _remove_empty(made)
    if kept:
        write_list(list_file(), kept, [*left, *_missing(list_file())])
    _systemctl("daemon-reload")
    answer(call.json, gone, "\n".join(gone))
    if kept:
        raise CspError(
            "changed",
            f"uninstall: {next(iter(kept))}: changed since it was installed: left there",
            "look at it; --force removes it",
            {"problems": [f"{path}: changed since: left there" for path in kept]},
        )
    return 0


# ---------------------------------------------------------------------- what belongs where


def wanted_files() -> dict[str, bytes | str]:
    """Path -> content; a string is the target of a symbolic link."""
    data = absolute(os.environ.get("XDG_DATA_HOME")) or Path.home() / ".local/share"
    programs = shipped.program_directory()
    search = os.environ.get("PATH", os.defpath)
    wanted: dict[str, bytes | str] = {}
    for path in shipped.units():
        wanted[unit_path(path.name)] = unit_text(path.read_text(), str(programs), search).encode()
    for path in shipped.manuals():
        wanted[str(data / "man" / f"man{path.suffix[1:]}" / path.name)] = path.read_bytes()
    places = {
        "bash": data / "bash-completion/completions/cspctl",
        "zsh": data / "zsh/site-functions/_cspctl",
        "fish": data / "fish/vendor_completions.d/cspctl.fish",
    }
    wanted |= {str(places[shell]): script.encode() for shell, script in SCRIPTS.items()}
    return wanted | _links(programs)


def _links(programs: Path) -> dict[str, bytes | str]:
    """For programs that PATH does not lead to, in a virtual environment for example."""
    there = Path.home() / ".local/bin"
    links: dict[str, bytes | str] = {}
    for name in shipped.PROGRAMS:
        target, path = programs / name, there / name
        others = os.pathsep.join(word for word in os.get_exec_path() if word not in (str(there), str(programs)))
        found = shutil.which(name, path=others)
        if programs != there and not (found and os.path.realpath(found) == os.path.realpath(target)):
            links[str(path)] = str(target)
    return links


def unit_text(template: str, programs: str, search: str) -> str:
    """The unit with the programs' own directory, and the PATH that agents are to have."""
    text = re.sub(
        r"(?m)^(Exec\w+=)%h/\.local/bin/(\S+)", lambda found: f"{found[1]}{quoted(f'{programs}/{found[2]}')}", template
    )
    return re.sub(r"(?m)^#Environment=PATH=.*$", lambda _: f"Environment={quoted(f'PATH={search}')}", text)


def quoted(word: str) -> str:
    """One word as systemd reads it."""
    text = word.replace("%", "%%")
    if re.search(r"[\s\"'\\]", text):
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return text


def unit_path(name: str) -> str:
    return str(Paths.from_environ(os.environ).config.parent / "systemd/user" / name)


# ---------------------------------------------------------------------- the list of what was put where


def list_file() -> Path:
    return Paths.from_environ(os.environ).state / "installed.json"


def read_list(path: Path) -> Marks:
    return {str(key): str(value) for key, value in _read(path).get("files", {}).items()}


def _made_directories(path: Path) -> list[str]:
    return [str(each) for each in _read(path).get("directories", [])]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise CspError("bad-list", f"list of installed files: {path}: {exc}", "remove it, then cspctl install") from exc
    return found if isinstance(found, dict) else {}


def write_list(path: Path, files: Mapping[str, str], directories: list[str]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps({"files": dict(files), "directories": directories}, indent=1) + "\n")
    fresh.rename(path)


def digest(content: bytes | str) -> str:
    return f"{LINK}{content}" if isinstance(content, str) else hashlib.sha256(content).hexdigest()


def mark_of(path: str) -> str:
    """The digest of what stands there now; "" for nothing."""
    if os.path.islink(path):
        return f"{LINK}{os.readlink(path)}"
    try:
        return digest(Path(path).read_bytes())
    except FileNotFoundError:
        return ""
    except OSError as exc:
        return f"unreadable: {exc.strerror}"


def _ours(path: str, known: Marks) -> bool:
    """Nothing there, or exactly what we have put there."""
    return mark_of(path) in ("", known.get(path))


# ---------------------------------------------------------------------- doing it


def _put(path: Path, content: bytes | str) -> list[str]:
    """Whole or not at all. -> the directories that had to be made, outermost first."""
    missing = _missing(path)
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        if isinstance(content, str):
            fresh.symlink_to(content)
        else:
            fresh.write_bytes(content)
        fresh.rename(path)
    except OSError as exc:
        raise CspError("not-written", f"install: {path}: {exc.strerror}", "run it again when that is mended") from exc
    return missing


def _missing(path: Path) -> list[str]:
    return [str(folder) for folder in reversed(path.parents) if not folder.exists()]


def _remove_empty(directories: list[str]) -> list[str]:
    """-> those that are left, because something of somebody else is in them."""
    left = []
    for folder in sorted(directories, key=len, reverse=True):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass  # removed already: as wanted
        except OSError:
            left.append(folder)
    return left


def _systemctl(*words: str) -> int | None:
    """Its exit status; None where there is no user manager to be asked."""
    try:
        return subprocess.run(
            ["systemctl", "--user", *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=SYSTEMCTL_SEC
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return None


def _answers(call: Call) -> bool:
    cspd = reach(call.socket)
    if cspd is not None:
        cspd.close()
    return cspd is not None


def _advise(call: Call, systemd: bool) -> None:
    if _systemctl("is-active", "--quiet", "cspd.service", "cspd.socket") != 0 and _answers(call):
        say("cspd runs already, without systemd: end it before you start the service; its agents end with it")
    if systemd:
        say("next: systemctl --user enable --now cspd")
    else:
        say("systemd's user manager does not answer here; after the next login: systemctl --user enable --now cspd")
    if str(Path.home() / ".local/bin") not in os.get_exec_path() and shutil.which("cspctl") is None:
        say("add ~/.local/bin to PATH: cspctl is there")
