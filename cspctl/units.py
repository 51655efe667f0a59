"""Verbs about agents: see them, start and stop them, look at their terminals.

cspd decides and does. Their unit files are changed by `unitfiles`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cspctl import output
from cspctl.client import reach
from cspctl.output import answer, colourful, print_json, safe, say
from cspd.errors import NOT_ACTIVE, CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
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
    wait = not call.flag("no-wait")
    with call.connect() as cspd:
        done, problems = cspd.each(method, [{"name": name, "wait": wait} for name in call.words])
    if call.json:
        print_json(done)
    for agent in done:
        say(output.standing(agent))
    raise_all(problems)
    return 0


def raise_all(problems: list[CspError]) -> None:
    """The first of them, which decides the exit status; the others are said before."""
    for problem in problems[1:]:
        from cspctl.main import report

        report(problem)
    if problems:
        raise problems[0]


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
    raise CspError(
        "usage", f"signal: {text}: not known", nearest(word, Signals.__members__) or "a name such as TERM, or a number"
    )


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
    from cspctl.fate import Standing, standing

    name = call.words[0]
    socket = Path(call.socket).with_name("agents") / f"{name}.sock"
    if not socket.exists():
        _refuse_attach(call, name)

    def why_down() -> Standing | None:
        cspd = reach(call.socket)
        if cspd is None:
            return None
        with cspd:
            return standing(cspd.call("agent.get", {"name": name, "brief": True}, ASK_SEC))

    key = call.value("detach-key") or "^]"
    return terminal.attach(name, socket, read_only=call.flag("read-only"), detach_key=key, why_down=why_down)


def _refuse_attach(call: Call, name: str) -> None:
    """Say at once what is wrong, unless the agent is about to have a terminal."""
    agent = call.ask("agent.get", {"name": name, "brief": True})
    if agent["state"] in ("inactive", "failed"):
        hint = "its own person starts it: cspctl run" if agent.get("guest") else f"cspctl start {name}"
        raise CspError("not-active", f"agent: {name}: {agent['state']}", hint)
