"""The verb `doctor`: looks at everything around an installation that can be wrong, and says what to do.

Each part yields findings and changes nothing. What the files of agents and profiles mean is read by the same code that
cspd uses, with the packages that it needs.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from cspctl import output, programs
from cspctl.client import Client
from cspctl.output import print_json, safe
from cspd import __version__
from cspd.errors import FAILED, CspError
from cspd.paths import Paths, absolute, check_socket_path

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cspctl.main import Call
    from cspd.config import UnitConfig
    from cspd.profiles.profile import Profile

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
SHADES = {OK: "green", NOTE: "blue", WARNING: "yellow", PROBLEM: "red"}
SYSTEMD_LEAST = 249  # StopPropagatedFrom=
LINUX_EXIT_STATUS = (6, 15)  # PIDFD_GET_INFO with the exit status of a process that is not one's child
ASK_SEC = 5.0
LONGEST_NAME = "n" * 32
CODEX_SANDBOX = (
    "codex's sandbox lets no command of its model connect, not even to cspd's socket: `cspctl send` fails there"
)


class Finding:
    """`what` was found, and what to do about it, or ""."""

    def __init__(self, level: str, what: str, advice: str = "") -> None:
        self.level, self.what, self.advice = level, what, advice


def doctor(call: Call) -> int:
    """Paths and permissions, cspd, systemd's units, the configuration, programs and their versions, their hooks.

    Exit status 1 when there is a problem; notes and warnings alone are 0.
    """
    paths = Paths.from_environ(os.environ)
    parts = (_paths(paths), _cspd(call), _systemd(), _linux(), _configuration(paths), _known_programs(paths))
    findings = [finding for part in parts for finding in part]
    if call.json:
        print_json([vars(finding) for finding in findings])
    else:
        colour = output.colourful(sys.stdout)
        for finding in findings:
            mark = output.paint(f"{finding.level:>7}", SHADES[finding.level], colour)
            print(f"{mark}  {safe(finding.what)}")
            if finding.advice:
                print(f"{'':>7}  -> {safe(finding.advice)}")
    return FAILED if any(finding.level == PROBLEM for finding in findings) else 0


# ---------------------------------------------------------------------- this instance


def _paths(paths: Paths) -> Iterator[Finding]:
    for variable in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        if os.environ.get(variable) and absolute(os.environ[variable]) is None:
            yield Finding(WARNING, f"{variable}: {os.environ[variable]}: not absolute: ignored", "give a whole path")
    if absolute(os.environ.get("XDG_RUNTIME_DIR")) is None:
        what = f"XDG_RUNTIME_DIR is not set: {paths.runtime} is used"
        yield Finding(NOTE, what, "log in by way of systemd-logind (ssh, a display manager), not by `su`")
    yield from _private(paths.runtime)
    yield from _private(paths.state)
    try:
        check_socket_path(paths.agent_socket(LONGEST_NAME))
    except CspError as problem:
        yield Finding(WARNING, f"for the longest names of agents, {problem.sentence}", problem.hint)


def _private(path: Path) -> Iterator[Finding]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        yield Finding(OK, f"{path}: not there yet; cspd makes it")
        return
    except OSError as exc:
        yield Finding(PROBLEM, f"{path}: {exc.strerror}", "make its parents accessible to you")
        return
    if facts.st_uid != os.getuid():
        yield Finding(PROBLEM, f"{path}: belongs to user {facts.st_uid}", "set the XDG variable to one of yours")
    elif facts.st_mode & 0o077:
        yield Finding(WARNING, f"{path}: others may look in (mode {facts.st_mode & 0o777:o})", f"chmod 700 {path}")
    elif not os.access(path, os.W_OK | os.X_OK):
        yield Finding(PROBLEM, f"{path}: not writable", f"chmod 700 {path}")
    else:
        yield Finding(OK, f"{path}: yours alone")


def _cspd(call: Call) -> Iterator[Finding]:
    try:
        with Client(call.socket) as cspd:
            known = cspd.call("daemon.status", {}, ASK_SEC)
    except CspError as problem:
        yield Finding(PROBLEM, problem.sentence, problem.hint)
        return
    for name in ("cspd", "keeper"):
        version = known[name].get("version")
        if version == __version__:
            yield Finding(OK, f"{name}: pid {known[name]['pid']}, version {version}")
        else:
            what = f"{name}: runs version {version}, but {__version__} is installed"
            yield Finding(WARNING, what, "systemctl --user restart cspd; for the keeper, csp-keeper: its agents end")


# ---------------------------------------------------------------------- the system


def _systemd() -> Iterator[Finding]:
    version = _said("systemctl", "--version").split()[1:2]
    if not version:
        yield Finding(NOTE, "systemd is not installed", "run cspd by another service manager, or in a terminal")
        return
    if version[0].isdigit() and int(version[0]) < SYSTEMD_LEAST:
        what = f"systemd {version[0]}: older than {SYSTEMD_LEAST}: `stop cspd` leaves csp-keeper and the agents"
        yield Finding(WARNING, what, "systemctl --user stop csp-keeper, too")
    yield from _units()
    if not _said("systemctl", "--user", "show", "--property=Version"):
        yield Finding(NOTE, "systemd's user manager does not answer", "log in by way of systemd-logind, not by `su`")
        return
    if "yes" in _said("systemctl", "--user", "show", "--property=NeedDaemonReload", "--value", "cspd.service"):
        yield Finding(WARNING, "systemd has not read the units again", "systemctl --user daemon-reload")
    if "enabled" in _said("systemctl", "--user", "is-enabled", "cspd.service", "cspd.socket").split():
        yield from _linger()


def _units() -> Iterator[Finding]:
    from cspctl import install

    try:
        wanted = {path: content for path, content in install.wanted_files().items() if "/systemd/" in path}
    except CspError as problem:
        yield Finding(PROBLEM, problem.sentence, problem.hint)
        return
    marks = {path: install.mark_of(path) for path in wanted}
    if not any(marks.values()):
        yield Finding(
            NOTE, "systemd's units are not installed: nothing starts cspd again after a logout", "cspctl install"
        )
        return
    other = [path for path, content in wanted.items() if marks[path] != install.digest(content)]
    for path in other:
        what = "differs from what this version and this PATH would make" if marks[path] else "missing"
        yield Finding(WARNING, f"{path}: {what}", "cspctl install; then systemctl --user restart cspd")
    if not other:
        yield Finding(OK, "systemd's units are installed and current")


def _linger() -> Iterator[Finding]:
    name = _said("id", "--user", "--name").strip()
    if os.path.exists(f"/var/lib/systemd/linger/{name}"):
        yield Finding(OK, "agents stay when you log out (linger)")
    else:
        what = "agents end when you log out of your last session"
        yield Finding(NOTE, what, "to keep them: loginctl enable-linger")


def _said(*command: str) -> str:
    """The output of a command; "" when it fails altogether."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=programs.VERSION_SEC
        ).stdout
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""


def _linux() -> Iterator[Finding]:
    release = platform.release()
    numbers = tuple(int(word) for word in release.split("-")[0].split(".")[:2] if word.isdigit())
    if numbers < LINUX_EXIT_STATUS:
        what = f"Linux {release}: when csp-keeper was killed, how an agent ends after that is not known"
        yield Finding(NOTE, what, "nothing to do; Linux 6.15 and newer tell it")
    else:
        yield Finding(OK, f"Linux {release}, Python {platform.python_version()}")


# ---------------------------------------------------------------------- agents and their programs


def _configuration(paths: Paths) -> Iterator[Finding]:
    from cspd.configfile import load_readable
    from cspd.profiles.find import broken_profiles

    try:
        loaded = load_readable(paths)
    except CspError as problem:
        for line in problem.data.get("problems") or [problem.sentence]:
            yield Finding(PROBLEM, str(line), "correct the file, then cspctl reload")
        return
    for lines in loaded.broken.values():
        for line in lines:
            yield Finding(PROBLEM, line, "correct the file, then cspctl reload")
    for line in broken_profiles(paths):
        yield Finding(PROBLEM, line, "correct the profile; until then its agents run under the default one")
    for unit in loaded.units.values():
        yield from _agent(unit, paths)


def _agent(unit: UnitConfig, paths: Paths) -> Iterator[Finding]:
    from cspd.profiles.find import examine_profile

    profile, problem = examine_profile(unit.profile, paths)
    if problem:
        yield Finding(PROBLEM, f"{unit.name}: its profile {unit.profile} cannot be read", "correct the profile")
    program, folder = unit.command[0], Path(unit.working_directory).expanduser()
    if not folder.is_dir():
        yield Finding(PROBLEM, f"{unit.name}: working_directory: {folder}: no such directory", "cspctl edit it")
    elif (
        programs.found(program, str(unit.working_directory), unit.environment.get("PATH") or _path_of_agents()) is None
    ):
        advice = "give its whole path in the unit file, or run cspctl install again with the right PATH"
        yield Finding(PROBLEM, f"{unit.name}: {program}: not found where cspd looks for programs", advice)
    else:
        yield Finding(OK, f"{unit.name}: {output.command_text(list(unit.command))}, {_wiring(unit, profile)}")


def _path_of_agents() -> str:
    """The PATH of the systemd unit, if there is one; else this one."""
    from cspctl.install import unit_path

    try:
        lines = Path(unit_path("cspd.service")).read_text().splitlines()
    except OSError:
        lines = []
    given = [line.removeprefix("Environment=").strip('"') for line in lines if line.startswith("Environment=")]
    words = [line.removeprefix("PATH=").replace("%%", "%") for line in given if line.startswith("PATH=")]
    return words[-1] if words else os.environ.get("PATH", os.defpath)


def _wiring(unit: UnitConfig, profile: Profile) -> str:
    from cspd.profiles.wiring import Place, wire

    if not unit.wire:
        return "hooks are switched off (wire = false)"
    additions = wire(profile, list(unit.command), Place(unit.name, "", ("cspctl",)))
    if additions.why_not:
        return f"no hooks: {additions.why_not}"
    added = additions.arguments or additions.environment or additions.files
    return "hooks and tools are added" if added else "read from its screen only"


def _known_programs(paths: Paths) -> Iterator[Finding]:
    """The CLIs that profiles were measured with."""
    from cspd.profiles.find import examine_profile, profile_texts

    for name in sorted(profile_texts(paths)):
        profile, problem = examine_profile(name, paths)
        if problem:
            continue  # said already
        tested = list(profile.versions_tested)
        for program in profile.programs if tested else ():
            yield from _program(program, tested)


def _program(program: str, tested: list[str]) -> Iterator[Finding]:
    path = shutil.which(program)
    if path is None:
        yield Finding(NOTE, f"{program}: not installed")
        return
    version = programs.version_of(path)
    doubt = programs.untested(program, version, tested)
    if doubt:
        yield Finding(WARNING, doubt, f"cspctl explain NAME shows what they make of it; {path}")
    else:
        yield Finding(OK if version else WARNING, f"{program} {version or 'does not tell its version'}: {path}")
    if program == "codex":
        advice = "its MCP server works; or allow it: codex -c sandbox_workspace_write.network_access=true"
        yield Finding(NOTE, CODEX_SANDBOX, advice)
