"""Verbs about agents: see them, start and stop them, change their unit files, look at their terminals.

cspd decides and does. A unit file is also written without it, with the same strict check that cspd makes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cspctl import output
from cspctl.client import reach
from cspctl.output import answer, colourful, print_json, safe, say
from cspd.errors import NOT_ACTIVE, CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.main import Call

ASK_SEC = 2.0  # attach cannot show anything while it asks
STATES = ("inactive", "starting", "running", "backoff", "stopping", "failed", "exited")
WAIT_FOR = (*STATES, "idle", "busy", "dialog", "unknown")


def list_agents(call: Call) -> int:
    """One row an agent. ATTACHED counts terminals that show it, QUEUED messages that wait to be typed."""
    agents = call.ask("agent.list", {})
    if not agents:
        say("no agents yet; add one: cspctl add claude -- claude")
    rows = output.table(output.AGENT_HEADERS, map(output.agent_row, agents)) if agents else []
    return answer(call.json, agents, "\n".join(rows))


def status(call: Call) -> int:
    """State and why, activity and why, inbox, last screen and log lines; -v adds every activity rule.

    Exit status 0 whatever the state is: ask `is-active` in scripts.
    """
    colour = colourful(sys.stdout)
    if not call.words:
        known = call.ask("daemon.status", {})
        return answer(call.json, known, "\n".join(output.overview_text(known, colour=colour)))
    name = {"name": call.words[0]}
    from cspctl.programs import doubts

    with call.connect() as cspd:
        agent = cspd.call("agent.get", name)
        inbox = cspd.call("inbox.get", name)
        lines = output.agent_text(agent, inbox, colour=colour, warning=doubts(agent))
        if call.flag("verbose") and agent["state"] == "running":
            lines += ["", "  activity rules:", *output.rules_text(cspd.call("agent.explain", name))]
    return answer(call.json, agent, "\n".join(lines))


def show(call: Call) -> int:
    """KEY=VALUE lines; nested properties have dots: `cspctl show claude -p sidecar.pid --value`.

    -p may be given several times. Absent values are empty, lists are JSON.
    """
    agent = call.ask("agent.get", {"name": call.words[0]})
    known = output.properties(agent)
    wanted = [key for given in call.values("property") for key in given.split(",")]
    for key in wanted:
        if key not in known and key not in agent:
            raise CspError("usage", f"property: {key}: not known", nearest(key, known) or "cspctl show NAME lists them")
    if call.json:
        print_json({key: known.get(key, agent.get(key)) for key in wanted} if wanted else agent)
        return 0
    for key in wanted or known:
        text = output.plain(known.get(key, agent.get(key)))
        print(text if call.flag("value") else f"{key}={text}")
    return 0


def is_active(call: Call) -> int:
    """Prints the state; exit status 0 only for `running`."""
    agent = call.ask("agent.get", {"name": call.words[0]})
    if not call.flag("quiet"):
        answer(call.json, {"name": agent["name"], "state": agent["state"]}, agent["state"])
    return 0 if agent["state"] == "running" else NOT_ACTIVE


def start(call: Call) -> int:
    """Waits until every agent runs, unless --no-wait. A failed start limit is forgotten first."""
    return _for_each(call, "agent.start")


def stop(call: Call) -> int:
    """Waits until every agent has ended, unless --no-wait."""
    return _for_each(call, "agent.stop")


def restart(call: Call) -> int:
    """Waits until every agent runs again, unless --no-wait."""
    return _for_each(call, "agent.restart")


def _for_each(call: Call, method: str) -> int:
    """All agents at once, so that slow stops do not add up; the first problem decides the exit status."""
    wait = not call.flag("no-wait")
    done: list[Any] = []
    problems: list[CspError] = []  # the first one is raised at the end
    with call.connect() as cspd:
        asked = [cspd.post(method, {"name": name, "wait": wait}) for name in call.words]
        for one in asked:
            try:
                done.append(cspd.reply(one, None))
            except CspError as refusal:
                if refusal.code == "unreachable":
                    raise
                problems.append(refusal)
    if call.json:
        print_json(done)
    for agent in done:
        say(output.standing(agent))
    for problem in problems[1:]:
        from cspctl.main import report

        report(problem)
    if problems:
        raise problems[0]
    return 0


def kill(call: Call) -> int:
    """Sends SIGTERM or the given signal to the agent's process; its restart policy then decides."""
    name = call.value("signal") or "SIGTERM"
    agent = call.ask("agent.kill", {"name": call.words[0], "signal": _signal_name(name)})
    return answer(call.json, agent)


def _signal_name(text: str) -> str:
    """`9`, `kill` and `SIGKILL` are the same signal."""
    from signal import Signals

    word = text.upper()
    for known in Signals:
        if word in (known.name, known.name.removeprefix("SIG"), str(int(known))):
            return known.name
    raise CspError("usage", f"signal: {text}: not known", nearest(word, Signals.__members__))


def reload(call: Call) -> int:
    """A file with errors is reported with all of its problems and changes nothing."""
    changes = call.ask("daemon.reload", {})
    say(output.changes_text(changes))
    return answer(call.json, changes)


def screen(call: Call) -> int:
    """The visible rows as text; --scrollback puts the history before them, --ansi keeps colours."""
    asked = {"name": call.words[0], "scrollback": call.flag("scrollback"), "ansi": call.flag("ansi")}
    shown = call.ask("agent.screen", asked)
    text = shown["text"] if call.flag("ansi") else safe(shown["text"], keep="\n")
    return answer(call.json, shown, text.rstrip("\n"))


def wait(call: Call) -> int:
    """STATE: running, exited, inactive, failed, ... or an activity: idle, busy, dialog.

    Exit status 6 when it did not come within --timeout; without it there is no limit.
    """
    aim = str(call.value("for"))
    if aim not in WAIT_FOR:
        hint = nearest(aim, WAIT_FOR) or f"one of {', '.join(WAIT_FOR)}"
        raise CspError("usage", f"wait: --for {aim}: not a state or activity", hint)
    params = {"name": call.words[0], "for": aim, "timeout_sec": call.number("timeout")}
    agent = call.ask("agent.wait", params, None)
    return answer(call.json, agent)


def explain(call: Call) -> int:
    """Every rule of the profile in order, whether it matched, and the screen lines that it looked at."""
    known = call.ask("agent.explain", {"name": call.words[0]})
    return answer(call.json, known, "\n".join(output.explained(call.words[0], known)))


def attach(call: Call) -> int:
    """Detach with ^] (--detach-key ^X for another, `none` for no key). Several terminals may be attached.

    With --read-only nothing that is typed reaches the agent.
    """
    from cspctl import attach as terminal

    name = call.words[0]
    socket = Path(call.socket).with_name("agents") / f"{name}.sock"
    if not socket.exists():
        _refuse_attach(call, name)

    def why_down() -> terminal.Standing | None:
        cspd = reach(call.socket)
        if cspd is None:
            return None
        with cspd:
            return terminal.standing(cspd.call("agent.get", {"name": name, "brief": True}, ASK_SEC))

    key = call.value("detach-key") or "^]"
    return terminal.attach(name, socket, read_only=call.flag("read-only"), detach_key=key, why_down=why_down)


def _refuse_attach(call: Call, name: str) -> None:
    """Say at once what is wrong, unless the agent is about to have a terminal."""
    agent = call.ask("agent.get", {"name": name, "brief": True})
    if agent["state"] in ("inactive", "failed"):
        raise CspError("not-active", f"agent: {name}: {agent['state']}", f"cspctl start {name}")


def _unit_file(name: str) -> Path:
    from cspd.paths import Paths, check_agent_name

    return Paths.from_environ(os.environ).unit_file(check_agent_name(name))


def _existing(name: str) -> Path:
    """The unit file, or `no-such-agent` with the nearest name."""
    path = _unit_file(name)
    if not path.exists():
        known = [file.stem for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise CspError("no-such-agent", f"agent: {name}: no file {path}", nearest(name, known) or "cspctl list")
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
    """The strict check that cspd makes; raises CspError with every problem."""
    from cspd.configfile import known_profiles, read_unit
    from cspd.paths import Paths

    read_unit(path, known_profiles(Paths.from_environ(os.environ)))


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
    return given if given.startswith("~") else os.path.abspath(given)


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
    """The history keeps what the agent has said."""
    name = call.words[0]
    cspd = reach(call.socket)
    if cspd is None:
        path = _existing(name)
        path.unlink()
        say(f"{name}: removed {path}; cspd is not running")
        return 0
    with cspd:
        cspd.call("agent.remove", {"name": name}, None)
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

    from cspd.unitfile import write_unit

    name = call.words[0]
    path = _existing(name)
    copy = Path(tempfile.mkdtemp(prefix="cspctl-edit-")) / path.name
    shutil.copyfile(path, copy)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        status = subprocess.run([*shlex.split(editor), str(copy)]).returncode
    except OSError as exc:
        shutil.rmtree(copy.parent)
        raise CspError("editor", f"editor: {editor}: {exc.strerror}", "set VISUAL or EDITOR") from exc
    kept = f"your text is kept in {copy}"
    if status != 0:
        raise CspError("editor", f"editor: {editor}: exit status {status}: {path} is unchanged", kept)
    if copy.read_bytes() == path.read_bytes():
        say(f"{name}: unchanged")
    else:
        try:
            _check(copy)
            write_unit(path, copy.read_text(encoding="utf-8"), replace=True)
        except CspError as problem:
            raise _again(problem, kept) from problem
        agent = _load(call, name, "it reads the file when it starts")
        if agent and agent["state"] == "running":
            say(f"{name}: the running agent changes with cspctl restart {name}")
    shutil.rmtree(copy.parent)
    return 0


def enable(call: Call) -> int:
    """Changes only the `autostart` line of the unit file; starts nothing now."""
    return _set_autostart(call, True)


def disable(call: Call) -> int:
    """Changes only the `autostart` line of the unit file; stops nothing now."""
    return _set_autostart(call, False)


def _set_autostart(call: Call, value: bool) -> int:
    from cspd.unitfile import set_autostart

    for name in call.words:
        set_autostart(_existing(name), value)
        _load(call, name, "it reads the file when it starts")
    return 0
