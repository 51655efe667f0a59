"""Verbs about messages and rooms: send, read the past, follow the present, see what waits and why.

cspd decides who is meant and what becomes of a message; here words become calls and answers become text.
"""

from __future__ import annotations

import sys

from cspctl import output
from cspctl.output import print_json, say
from cspd.errors import FAILED, CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cspctl.client import Client
    from cspctl.main import Call

LADDER = ("accepted", "held", "typing", "echoed", "submitted", "turn_started", "turn_ended")
CONTENT_MAX = 65536  # cspd's limit; more is not even read from a pipe
HISTORY_LINES = 50
PAGE = 500


def send(call: Call) -> int:
    """NAME is an agent, `broadcast` (all in the room) or `human`. Several words are joined with blanks.

    MESSAGE `-`, or none, reads stdin. A message that begins with - and has no blank needs -- before it.
    --wait STEP waits until every recipient is at `typing`, `echoed`, `submitted`, `turn_started` or
    `turn_ended`, and prints the step. Exit status 6 when that did not happen within --timeout, 1 when it
    cannot happen any more.
    """
    step = call.value("wait")
    if step is not None and step not in LADDER:
        raise CspError(
            "usage",
            f"send: --wait {step}: no such step",
            nearest(step, LADDER) or f"one of {', '.join(LADDER)}",
        )
    timeout = call.number("timeout")
    params = _envelope(call)
    with call.connect() as cspd:
        accepted = cspd.call("chat.message", params)
        if step is None:
            print_json(accepted) if call.json else print(accepted["message_id"])
            return 0
        return _follow(cspd, call, accepted, step, timeout)


def _envelope(call: Call) -> dict[str, Any]:
    to = [name for name in ",".join(call.values("to")).split(",") if name]
    if not to:
        raise CspError("usage", "send: --to: no name in it", "--to NAME, --to A,B or --to broadcast")
    params: dict[str, Any] = {"to": to[0] if len(to) == 1 else to, "content": _content(call)}
    for option, key in (("room", "room"), ("reply-to", "reply_to")):
        if (value := call.value(option)) is not None:
            params[key] = value
    return params | ({"urgent": True} if call.flag("urgent") else {})


def _content(call: Call) -> str:
    text = " ".join(call.words) if call.words and call.words != ["-"] else _from_stdin()
    if not text.strip():
        raise CspError("usage", "message: empty: nothing to send", "cspctl send --to NAME MESSAGE")
    return text


def _from_stdin() -> str:
    if sys.stdin.isatty():
        say("type the message; Ctrl-D on an empty line sends it, Ctrl-C does not")
    data = sys.stdin.buffer.read(CONTENT_MAX + 2)
    if len(data.rstrip(b"\n")) > CONTENT_MAX:
        raise CspError("too-large", f"message: more than {CONTENT_MAX} bytes", "put it in a file and send its path")
    try:
        return data.decode().rstrip("\n")
    except UnicodeDecodeError as exc:
        raise CspError(
            "not-text", f"message: byte {exc.start}: not UTF-8", "send text; for other data send a path"
        ) from exc


def _follow(cspd: Client, call: Call, accepted: Mapping[str, Any], step: str, timeout: float | None) -> int:
    """Print the id at once and the steps when they are reached."""
    if not call.json:
        print(accepted["message_id"], flush=True)
    asked = {"message_id": accepted["message_id"], "step": step, "timeout_sec": timeout}
    deliveries: dict[str, Any] = cspd.call("chat.wait", asked, None)["deliveries"]
    if call.json:
        print_json({**accepted, "deliveries": deliveries})
    for name, delivery in deliveries.items():
        # A delivery that is further already has reached what was waited for: scripts compare with that word.
        reached = step if _reached(delivery["step"], step) else delivery["step"]
        if not call.json:
            print(reached if len(deliveries) == 1 else f"{output.safe(name)}: {reached}")
        if delivery.get("reason"):
            say(f"{output.safe(name)}: {output.step_text(delivery['step'], delivery['reason'])}")
    return 0 if all(_reached(delivery["step"], step) for delivery in deliveries.values()) else FAILED


def _reached(step: str, wanted: str) -> bool:
    return step in LADDER and LADDER.index(step) >= LADDER.index(wanted)


def history(call: Call) -> int:
    """The last 50 messages, or -n; with --since CURSOR everything after it. --json prints a message a line.

    --grep finds TEXT anywhere in the content, in upper or lower case.
    """
    lines = call.number("lines")
    since = call.number("since")
    params: dict[str, Any] = {key: call.value(key) for key in ("room", "from", "to", "grep") if call.flag(key)}
    colour = output.colourful(sys.stdout)
    with call.connect() as cspd:
        if since is None:
            params["limit"] = HISTORY_LINES if lines is None else int(lines)
            _print_messages(call, cspd.call("chat.history", params)["messages"], colour)
            return 0
        left = float("inf") if lines is None else lines
        while left > 0:
            page = cspd.call("chat.history", {**params, "since": int(since), "limit": int(min(PAGE, left))})["messages"]
            if not page:
                break
            _print_messages(call, page, colour)
            left -= len(page)
            since = page[-1]["seq"]
    return 0


def _print_messages(call: Call, messages: list[dict[str, Any]], colour: bool) -> None:
    for message in messages:
        print_json(message) if call.json else print(output.message_text(message, colour=colour))


def watch(call: Call) -> int:
    """Ends with Ctrl-C. When cspd restarts it goes on where it was: nothing is missed.

    --since CURSOR begins in the past; --json prints an event a line.
    """
    from cspctl.client import follow

    colour = output.colourful(sys.stdout)
    since = call.number("since")
    for event in follow(call.socket, None if since is None else int(since), call.value("room"), say):
        if call.json:
            print_json(event)
        else:
            print(output.event_text(event, colour=colour))
        sys.stdout.flush()
    return 0


def list_rooms(call: Call) -> int:
    """Every room with its members."""
    known = call.ask("room.list", {})
    if call.json:
        print_json(known)
        return 0
    rows = [
        [
            room["room"],
            ", ".join(room["members"]) or "-",
            room["messages"],
            _paused(room),
            room.get("topic") or "",
        ]
        for room in known
    ]
    print("\n".join(output.table(("ROOM", "MEMBERS", "MESSAGES", "PAUSED", "TOPIC"), rows)))
    return 0


def _paused(scope: Mapping[str, Any]) -> str:
    return "yes" if scope.get("paused") else "no"


def room(call: Call) -> int:
    """Members with state and activity, the number of messages, and what the loop guard has stopped."""
    name = call.words[0]
    with call.connect() as cspd:
        known = cspd.call("room.get", {"room": name})
        agents = {agent["name"]: agent for agent in cspd.call("agent.list", {})}
    if call.json:
        print_json(known)
        return 0
    print(output.room_text(known))
    rows = [
        [member, agent["state"], output.activity_text(agent), agent["queued"]]
        for member in known["members"]
        if (agent := agents.get(member, {"state": "-", "queued": "-"}))
    ]
    if rows:
        print("\n".join(output.table(("MEMBER", "STATE", "ACTIVITY", "QUEUED"), rows)))
    if known.get("guard"):
        print(f"guard: {output.plain(known['guard'])}")
    return 0


def inbox(call: Call) -> int:
    """Messages that are not typed yet, the first one first."""
    name = call.words[0]
    waiting = call.ask("inbox.get", {"name": name})
    if call.json:
        print_json(waiting)
        return 0
    if not waiting:
        say(f"{name}: nothing waits")
        return 0
    rows = []
    for message in waiting:
        delivery = message["deliveries"].get(name, {"step": "accepted"})
        text = output.shorten(message["content"], 60)
        rows.append([message["message_id"], output.clock(message["ts"]), message["from"], delivery["step"]])
        rows[-1] += [delivery.get("reason") or "-", text]
    print("\n".join(output.table(("ID", "SENT", "FROM", "STEP", "WHY", "TEXT"), rows)))
    if told := output.advice(rows[0][4], name):
        say(f"{rows[0][0]}{told}")
    return 0


def message(call: Call) -> int:
    """The message, then what happened to it in order, and why. The first six characters of ID are enough."""
    known = call.ask("chat.get", {"message_id": call.words[0]})
    if call.json:
        print_json(known)
        return 0
    colour = output.colourful(sys.stdout)
    print(output.paint(f"{known['message_id']} in {output.safe(known['room'])}", "dim", colour))
    print(output.message_text(known, colour=colour))
    story = [(step["ts"], name, step) for name, steps in known["steps"].items() for step in steps]
    for ts, name, step in sorted(story, key=lambda entry: entry[0]):
        evidence = f": {output.shorten(step['evidence'], 80)}" if step.get("evidence") else ""
        told = output.step_text(step["step"], step.get("reason") or "", colour)
        print(f"{output.clock(ts)}   {output.safe(name)}: {told}{evidence}")
    return 0


def pause(call: Call) -> int:
    """Messages are kept and wait in the inbox until `resume`; people at their terminals go on."""
    return _set_paused(call, "agent.pause")


def resume(call: Call) -> int:
    """What waits is typed as soon as the agent is idle."""
    return _set_paused(call, "agent.resume")


def _set_paused(call: Call, method: str) -> int:
    room = call.value("room")
    if bool(call.words) == (room is not None):
        raise CspError("usage", f"{call.verb}: either NAME or --room R", f"cspctl help {call.verb}")
    done = call.ask(method, {"room": room} if room is not None else {"name": call.words[0]})
    return output.answer(call.json, done)
