"""What people and programs see: tables, times, colours, messages and agents as text.

Text from agents and peers is made harmless here: no control character of theirs reaches a person's terminal.
Which facts to show is decided by the verbs.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TextIO

SGR = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
STATE_COLOURS = {
    "running": "green",
    "failed": "red",
    "backoff": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
}
SPEAKER_COLOURS = ("cyan", "magenta", "yellow", "blue", "green")
FAILED_STEPS = frozenset({"refused", "expired", "unknown"})


def say(text: str) -> None:
    """Talk: a line on stderr."""
    print(text, file=sys.stderr)


# What a terminal may obey instead of showing, where JSON allows it raw: DEL, C1, marks that reorder the line.
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def print_json(value: object, *, indent: int | None = None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    print(_OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def answer(as_json: bool, value: object, text: str = "") -> int:
    """A verb's last act: the value for programs or the text for people; exit status 0."""
    if as_json:
        print_json(value)
    elif text:
        print(text)
    return 0


def plain(value: object) -> str:
    """A value for `KEY=VALUE`: absent is empty, text is itself, everything else is JSON."""
    match value:
        case None:
            return ""
        case str():
            return safe(value)
        case _:
            return json.dumps(value, ensure_ascii=False)


def colourful(stream: TextIO) -> bool:
    """Colour only on a terminal that has it, and never against NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, on: bool) -> str:
    return f"\x1b[{SGR[colour]}m{text}\x1b[m" if on and colour else text


def safe(text: str, keep: str = "") -> str:
    """`text` with every character that a terminal obeys, or that reorders text, shown as an escape.

    `keep` names control characters that may stay, such as a newline.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep or _harmless(c) else _escaped(c) for c in text)


def _harmless(character: str) -> bool:
    """Not printable by Python's word, yet no command: wide blanks, icons of fonts, the joiners of emoji."""
    from unicodedata import category

    return category(character) in ("Zs", "Co", "Cn") or character in "\u200c\u200d"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def width(text: str) -> int:
    """Columns that `text` takes: wide characters count two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(0 if category(c) in ("Mn", "Me", "Cf") else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, columns: int) -> str:
    """The first line of `text` in at most `columns` columns, with `…` for what is left out."""
    line = safe(text.split("\n", 1)[0])
    if width(line) <= columns and "\n" not in text.rstrip("\n"):
        return line
    while width(line) >= columns:
        line = line[:-1]
    return f"{line}…"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Aligned lines, headers first; the last column runs free."""
    cells = [[safe("-" if value is None else str(value)) for value in row] for row in rows]
    columns = [max(width(row[at]) for row in [list(headers), *cells]) for at in range(len(headers))]
    return [
        "  ".join(f"{cell}{' ' * (columns[at] - width(cell))}" for at, cell in enumerate(row)).rstrip()
        for row in [list(headers), *cells]
    ]


def span(seconds: float | None) -> str:
    """A duration for people in its two largest units."""
    if seconds is None:
        return "-"
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def clock(ts: float, now: float | None = None) -> str:
    """Local time of day, with the date when it is another day than `now`."""
    then = time.localtime(ts)
    today = time.localtime(now)
    same_day = then[:3] == today[:3]
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S", then)


def addressees(to: object) -> str:
    return ", ".join(safe(str(name)) for name in to) if isinstance(to, list) else safe(str(to))


def message_text(
    message: Mapping[str, Any], *, ids: bool = False, colour: bool = False, now: float | None = None
) -> str:
    """`12:03:04 alpha → beta: text`, further lines indented; with `ids` the message's own behind the time."""
    when = f"{clock(message['ts'], now)} {safe(message['message_id'])}" if ids else clock(message["ts"], now)
    return f"{paint(when, 'dim', colour)} {spoken(message, colour=colour)}"


def spoken(message: Mapping[str, Any], *, colour: bool = False) -> str:
    """`alpha → beta: text`, without the time."""
    first, *more = safe(message["content"], keep="\n").split("\n")
    sender = safe(message["from"])
    arrow = paint(sender, speaker_colour(sender), colour)
    to = addressees(message["to"])
    head = {"system": paint("--", "dim", colour), "input": f"{arrow} typed into {to}:"}.get(
        message.get("kind", "message"), f"{arrow} → {to}:"
    )
    return "\n".join([f"{head} {first}", *(f"    {line}" for line in more)])


def speaker_colour(name: str) -> str:
    """The same colour for the same name in every run."""
    return SPEAKER_COLOURS[sum(name.encode()) % len(SPEAKER_COLOURS)]


def step_text(step: str, reason: str, colour: bool = False) -> str:
    shade = "red" if step in FAILED_STEPS else "yellow" if step == "held" else ""
    return paint(step, shade, colour) + (f" ({safe(reason)})" if reason else "")


def activity_text(agent: Mapping[str, Any]) -> str:
    """`paused` hides nothing: it is said beside the activity."""
    activity = agent.get("activity") or "-"
    return f"{activity}, paused" if agent.get("paused") else activity


def command_text(command: object) -> str:
    """A command as a person would type it in a shell."""
    if not isinstance(command, list):
        return safe(str(command or "-"))
    from shlex import join

    return safe(join(str(word) for word in command))


def properties(agent: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one level with dots in the names, for `show`."""
    flat: dict[str, Any] = {}
    for key, value in agent.items():
        flat |= properties(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def standing(agent: Mapping[str, Any]) -> str:
    """What has become of an agent, in one line; in further ones what the person must still do for it, or know."""
    advice = f"\n{agent['name']}: {safe(agent['advice'])}" if agent.get("advice") else ""
    if agent.get("unit_file_problem"):
        advice += f"\n{agent['name']}: unit file: {safe(agent['unit_file_problem'])}"
    pid = f", pid {agent['pid']}" if agent.get("pid") else ""
    why = f" ({safe(agent['reason'])})" if agent.get("reason") else ""
    return f"{agent['name']}: {agent['state']}{pid}{why}{advice}"


AGENT_HEADERS = ("NAME", "STATE", "ACTIVITY", "QUEUED", "ATTACHED", "RESTARTS", "UPTIME", "COMMAND")


def agent_row(agent: Mapping[str, Any]) -> list[object]:
    numbers = [agent["queued"], agent["attached"], agent["restarts"], span(agent["uptime_sec"])]
    mark = "guest: " if agent.get("guest") else ""
    return [agent["name"], agent["state"], activity_text(agent), *numbers, mark + command_text(agent["command"])]


def agent_text(
    agent: Mapping[str, Any], inbox: Sequence[Mapping[str, Any]], *, colour: bool = False, warning: str = ""
) -> list[str]:
    """Lines about one agent in the manner of `systemctl status`. `warning`: why its profile may not fit."""
    state = agent["state"]
    shade = STATE_COLOURS.get(state, "")
    pid = f", pid {agent['pid']}, for {span(agent['uptime_sec'])}" if agent.get("pid") else ""
    why = f" ({safe(agent['reason'])})" if agent.get("reason") else ""
    activity_why = f" ({safe(agent['activity_reason'])})" if agent.get("activity_reason") else ""
    sidecar = agent.get("sidecar")
    autostart = "starts with cspd" if agent.get("autostart") else "does not start with cspd"
    guest = "a guest: it is run by hand" if agent["command"] else "a guest: a program that registered"
    start = guest if agent.get("guest") else autostart
    dot = paint("●" if state == "running" else "○", shade, colour)
    facts = {
        "State": f"{paint(state, shade, colour)}{why}{pid}; restarts: {agent['restarts']}",
        "Activity": f"{activity_text(agent)}{activity_why}",
        "Room": "; ".join([agent["room"], *([f"profile {agent['profile']}"] if agent["profile"] else []), start]),
        **({"Profile": paint(safe(warning), "yellow", colour)} if warning else {}),
        "Attached": f"{agent['attached']}; sidecar {'pid ' + str(sidecar['pid']) if sidecar else 'none'}",
        "Inbox": inbox_text(inbox, agent["name"]) if inbox else f"{agent['queued']} waiting",
    }
    if agent.get("guard"):
        facts["Loop guard"] = f"holds messages: {safe(agent['guard'])}; `cspctl resume {agent['name']}`"
    lines = [f"{dot} {agent['name']}" + (f" - {command_text(agent['command'])}" if agent["command"] else "")]
    if agent.get("unit_file_problem"):
        facts["Unit file"] = paint(safe(agent["unit_file_problem"]), "yellow", colour)
    facts |= {"To do": safe(agent["advice"])} if agent.get("advice") else {}
    lines += [*(f"{key:>12}: {value}" for key, value in facts.items())]
    for title, text in (("last screen lines", agent.get("last_lines")), ("last log lines", agent.get("log"))):
        if text:
            lines += ["", f"  {title}:", *(f"  | {safe(line)}" for line in text)]
    return lines


def inbox_text(inbox: Sequence[Mapping[str, Any]], name: str) -> str:
    """How many wait, and what holds the first of them."""
    first = inbox[0].get("deliveries", {}).get(name, {})
    told = step_text(first.get("step", "accepted"), first.get("reason", ""))
    return f"{len(inbox)} waiting, the first: {told}{advice(first.get('reason') or '', name)}"


def advice(reason: str, name: str) -> str:
    """What only a person can do about a message that is held; "" when it is nothing."""
    if reason != "leftover":
        return ""
    return (
        f"; text of an earlier message may stand in its input: if it does not go on by itself, `cspctl attach {name}`, "
        "look, and press ^U, ^C or Enter"
    )


def overview_text(status: Mapping[str, Any], *, colour: bool = False) -> list[str]:
    """Lines about the whole of CSP: programs, rooms, agents."""
    cspd, keeper, gateway = status["cspd"], status.get("keeper") or {}, status.get("gateway") or {}
    lines = [
        f"   cspd: pid {cspd['pid']}, version {cspd['version']}, up {span(cspd['uptime_sec'])}",
        f" keeper: pid {keeper.get('pid', '-')}",
        f"gateway: {gateway.get('listen') or 'off'}",
    ]
    if deaf := gateway.get("problem"):
        lines[-1] = paint(safe(deaf), "red", colour)
    if aside := (status.get("history") or {}).get("quarantined"):
        lines.append(paint(f"history: was damaged: set aside as {safe(aside)}; a new one was begun", "red", colour))
    lines += [f"   room: {room_text(room)}" for room in status["rooms"]]
    agents = [
        f"{paint('●' if a['state'] == 'running' else '○', STATE_COLOURS.get(a['state'], ''), colour)} {line}"
        for a, line in zip(status["agents"], table(("",) * 4, map(_brief, status["agents"]))[1:], strict=True)
    ]
    return lines + (["", *agents] if agents else [])


def _brief(agent: Mapping[str, Any]) -> list[object]:
    return [agent["name"], agent["state"], activity_text(agent), agent.get("reason") or ""]


def room_text(room: Mapping[str, Any]) -> str:
    members = ", ".join(safe(name) for name in room["members"]) or "nobody"
    topic = f" - {safe(room['topic'])}" if room.get("topic") else ""
    paused = "; paused" if room.get("paused") else ""
    guard = "; held by the loop guard" if room.get("guard") else ""
    return f"{safe(room['room'])}{topic}: {members}; messages {room['messages']}{paused}{guard}"


def floor_text(room: Mapping[str, Any]) -> list[str]:
    """Whose turn it is."""
    floor = room.get("floor")
    if not floor:
        return []
    order = " → ".join(f"[{safe(name)}]" if name == floor["speaker"] else safe(name) for name in floor["order"])
    said = ", has spoken" if floor["spoken"] else ""
    return [f"turns: {order}; round {floor['round']} of {floor['rounds']}{said}"]


def vote_text(room: Mapping[str, Any]) -> list[str]:
    """The open vote, and who has not voted yet."""
    vote = room.get("vote")
    if not vote:
        return []
    missing = ", ".join(safe(name) for name in vote["missing"]) or "nobody"
    choices = ", ".join(safe(choice) for choice in vote["choices"])
    return [f"vote: {safe(vote['question'])} ({choices}); ballots: {len(vote['ballots'])}; missing: {missing}"]


def guard_text(room: Mapping[str, Any]) -> list[str]:
    """What the loop guard holds in a room, and what to do about it."""
    stops = room.get("guard") or []
    if not stops:
        return ["guard: holds nothing"]
    held = [f"guard: {safe(stop['why'])}: held since {clock(stop['since'])}" for stop in stops]
    return [*held, f"guard: `cspctl resume --room {safe(room['room'])}` or a message of yours lets it go on"]


def rules_text(known: Mapping[str, Any]) -> list[str]:
    """The activity rules of `agent.explain`, the matching ones marked."""
    lines = []
    for rule in known["rules"]:
        why = f": {safe(rule['why'])}" if rule.get("why") else ""
        lines.append(f"  {'*' if rule['matched'] else ' '} {safe(rule['rule'])} -> {safe(str(rule['activity']))}{why}")
        lines += [f"      | {safe(str(line))}" for line in rule.get("lines") or ()]
    return lines


def explained(name: str, known: Mapping[str, Any]) -> list[str]:
    """The whole of `agent.explain`."""
    why = f" ({safe(known['reason'])})" if known.get("reason") else ""
    return [f"{name}: {known['activity']}{why}", *rules_text(known)]


def changes_text(changes: Mapping[str, Sequence[str]]) -> str:
    """What a reload has changed, in one line, and what it has left as it is, a line each."""
    words = ("loaded", "changed", "removed", "settings")
    told = [f"{word}: {', '.join(changes[word])}" for word in words if changes.get(word)]
    lines = ["; ".join(told) or "nothing has changed"]
    lines += [f"{name}: runs on without a unit file; cspctl remove {name} ends it" for name in changes.get("kept", ())]
    lines += [f"{problem}: the default profile is used" for problem in changes.get("warnings", ())]
    return "\n".join(map(safe, lines))


def event_text(event: Mapping[str, Any], *, colour: bool = False) -> str:
    """One event of `watch`: a message as in `history`, everything else as a dim line below it."""
    match event["type"]:
        case "message" | "input":
            return message_text(event["message"], colour=colour)
        case "delivery":
            told = step_text(event["step"], event.get("reason") or "", colour)
            note = f"{safe(event['agent'])}: {told} [{safe(event['message_id'][:8])}]"
        case "unheard":
            note = f"{safe(event['agent'])}: named {safe(event['to'])!r} and was not heard: {safe(event['why'])}"
        case "unit-file":
            note = paint(f"{safe(event['agent'])}: unit file: {safe(event['problem'])}", "yellow", colour)
        case "agent":
            why = f" ({safe(event['reason'])})" if event.get("reason") else ""
            states = " ".join(word for word in (event.get("state"), event.get("activity")) if word)
            note = f"{safe(event['agent'])}: {states}{why}"
        case "guard":
            what = "holds messages" if event["held"] else "lets go on"
            todo = f": `cspctl resume --room {safe(event['room'])}`" if event["held"] else ""
            told = f"loop guard {what}: {safe(event['why'])}{todo}"
            note = paint(told, "yellow" if event["held"] else "", colour)
        case "room" if event.get("speaker"):
            note = f"turn of {safe(event['speaker'])}, round {event['round']} of {event['rounds']}"
        case kind:
            shown = ("cursor", "type", "ts")
            rest = {key: value for key, value in event.items() if key not in shown}
            note = f"{kind}: {plain(rest)}"
    return f"{paint(clock(event['ts']), 'dim', colour)}   {note}"
