"""Verbs about messages and rooms: send, read the past, follow the present, see what waits and why.

cspd decides who is meant and what becomes of a message; here words become calls and answers become text.
"""

from __future__ import annotations

import os
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
        if not call.json:
            _say_held(accepted)
        if step is None:
            print_json(accepted) if call.json else print(accepted["message_id"])
            return 0
        return _follow(cspd, call, accepted, step, timeout)


def _say_held(accepted: Mapping[str, Any]) -> None:
    """Whom it does not reach now, and why."""
    if accepted.get("kept"):  # by the sidecar of an agent that is run with --gateway
        say(f"{output.safe(accepted.get('why', 'cspd: not connected now'))}; the message is kept until it is back")
    for name, reason in accepted.get("held", {}).items():
        say(f"{output.safe(name)}: {output.step_text('held', reason)}: it waits until that has changed")


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
    given = call.words and call.words != ["-"]
    text = _text(os.fsencode(" ".join(call.words)) if given else _from_stdin())
    if not text.strip():
        raise CspError("usage", "message: empty: nothing to send", "cspctl send --to NAME MESSAGE")
    return text


def _from_stdin() -> bytes:
    if sys.stdin.isatty():
        say("type the message; Ctrl-D on an empty line sends it, Ctrl-C does not")
    data = sys.stdin.buffer.read(CONTENT_MAX + 2)
    if len(data.rstrip(b"\n")) > CONTENT_MAX:
        raise CspError("too-large", f"message: more than {CONTENT_MAX} bytes", "put it in a file and send its path")
    return data.rstrip(b"\n")


def _text(data: bytes) -> str:
    try:
        return data.decode()
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

    --grep finds TEXT anywhere in the content, in upper or lower case. --ids shows what `message` and --reply-to want.
    """
    lines = call.number("lines")
    since = call.number("since")
    params: dict[str, Any] = {key: call.value(key) for key in ("room", "from", "to", "grep") if call.flag(key)}
    colour = output.colourful(sys.stdout)
    with call.connect() as cspd:
        if since is None:
            params["limit"] = HISTORY_LINES if lines is None else int(lines)
            found = cspd.call("chat.history", params)["messages"]
            _print_messages(call, found, colour)
            if not found and lines != 0:
                say("no such messages" if set(params) - {"limit", "room"} else "no messages yet")
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
        print_json(message) if call.json else print(output.message_text(message, ids=call.flag("ids"), colour=colour))


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
            "held" if room.get("guard") else "-",
            room.get("topic") or "",
        ]
        for room in known
    ]
    print("\n".join(output.table(("ROOM", "MEMBERS", "MESSAGES", "PAUSED", "GUARD", "TOPIC"), rows)))
    return 0


def _paused(scope: Mapping[str, Any]) -> str:
    return "yes" if scope.get("paused") else "no"


def room(call: Call) -> int:
    """Without ACTION and options: members with state and activity, counts, the floor, and what the loop guard holds.

    --mode turns lets the members speak in turn, in the order of --order or by name, for --rounds (one); what others
    say meanwhile is held until it is their turn. You may speak at any time. A speaker that neither speaks nor works
    for --turn-sec (120) is skipped. --mode freeform ends it. --topic is told to each speaker.

    ACTION:
      next                    the next one's turn
      vote QUESTION A B ...   open a vote, for --timeout seconds (600) at most; members answer by a message to `vote`
      vote A                  your own ballot
      close                   end the vote and announce its result
    """
    name, *rest = call.words
    method, params = _room_change(call, rest)
    with call.connect() as cspd:
        known = cspd.call(method, {"room": name, **params})
        if params.get("choice") is not None:
            return output.answer(call.json, known, f"voted: {output.safe(params['choice'])}")
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
    print("\n".join([*output.floor_text(known), *output.vote_text(known), *output.guard_text(known)]))
    return 0


ACTIONS = ("next", "vote", "close")


def _room_change(call: Call, words: list[str]) -> tuple[str, dict[str, Any]]:
    """The method that these words ask for, and what it is told beside the room."""
    settings = _room_settings(call)
    timeout = call.number("timeout")
    match words:
        case ["vote", question, first, second, *more]:
            choices = {"question": question, "choices": [first, second, *more]}
            asked = "room.vote", choices | ({} if timeout is None else {"timeout_sec": timeout})
        case ["vote", choice]:
            asked = "room.vote", {"choice": choice}
        case ["vote", *_]:
            raise CspError("usage", "room: vote: too few words", 'vote "question" A B, or vote A')
        case ["close"]:
            asked = "room.vote", {"close": True}
        case ["next"]:
            asked = "room.next", {}
        case []:
            return ("room.set", settings) if settings else ("room.get", {})
        case [action, *_]:
            hint = nearest(action, ACTIONS) or f"one of {', '.join(ACTIONS)}"
            raise CspError("usage", f"room: {' '.join(words)}: no such action", hint)
    if settings:
        raise CspError("usage", f"room: {words[0]}: takes no options of turns or topic", "cspctl help room")
    return asked


def _room_settings(call: Call) -> dict[str, Any]:
    settings: dict[str, Any] = {key: call.value(key) for key in ("topic", "mode") if call.flag(key)}
    if call.flag("order"):
        settings["order"] = [name for name in ",".join(call.values("order")).split(",") if name]
    if (rounds := call.number("rounds")) is not None:
        settings["rounds"] = int(rounds)
    if (turn_sec := call.number("turn-sec")) is not None:
        settings["turn_sec"] = turn_sec
    if "turn_sec" in settings and not settings.keys() & {"rounds", "order", "mode"}:
        raise CspError("usage", "room: --turn-sec: of which turns?", "with it --mode turns, --order or --rounds")
    if settings.keys() & {"rounds", "turn_sec"}:
        settings.setdefault("mode", "turns")
    return settings


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
        urgent = "urgent: " if message["meta"].get("urgent") else ""
        rows[-1] += [delivery.get("reason") or "-", urgent + text]
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
    """What waits is typed as soon as the agent is idle. What the loop guard holds goes on too, with a fresh allowance.

    A message of yours into the room does the latter as well.
    """
    return _set_paused(call, "agent.resume")


def _set_paused(call: Call, method: str) -> int:
    room = call.value("room")
    if bool(call.words) == (room is not None):
        raise CspError("usage", f"{call.verb}: either NAME or --room R", f"cspctl help {call.verb}")
    done = call.ask(method, {"room": room} if room is not None else {"name": call.words[0]})
    for stop in done.get("released", ()):
        say(f"goes on: {output.safe(stop['why'])}")
    return output.answer(call.json, done)
