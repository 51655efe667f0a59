"""Decides what is added to an agent's command, environment and files, so that the program's hooks reach us.

The person's own configuration is never touched. Files are written, and the command is started, by others.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from cspd.profiles.profile import Profile

_PLACEHOLDER = re.compile(r"\{(dir|name|hook)\}")
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")
DEFAULT_TIMEOUT_SEC = 600  # codex's own, which it counts into the mark


@attrs.frozen
class Place:
    """Where the wiring of one agent lives. `hook`: the command, as words, that a hook calls with an event's name."""

    name: str
    folder: str
    hook: tuple[str, ...]


@attrs.frozen
class Wired:
    """The additions. `why_not`: nothing is added, for this reason."""

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = attrs.field(factory=dict)
    files: Mapping[str, str] = attrs.field(factory=dict)  # by name in the folder
    why_not: str = ""


def wire(profile: Profile, command: Sequence[str], place: Place) -> Wired:
    """What to add to this command."""
    wiring = profile.wiring
    in_the_way = next((word for word in command if word.partition("=")[0] in (*wiring.unless, "--")), None)
    if in_the_way is not None and (wiring.arguments or wiring.hook_option):
        return Wired(why_not=f"the command has {in_the_way!r} already")
    table = _hook_table(profile, place)
    arguments = [_filled(word, place) for word in wiring.arguments]
    if wiring.hook_option and table:
        arguments += _overrides(wiring.hook_option, table)
    return Wired(
        tuple(arguments),
        {key: _filled(value, place) for key, value in wiring.environment.items()},
        {file.name: json.dumps(_content(file.content, table, place), indent=1) + "\n" for file in wiring.files},
    )


def _hook_table(profile: Profile, place: Place) -> dict[str, Any]:
    """claude, codex and gemini give it the same shape: event -> groups -> handlers."""
    wiring = profile.wiring
    return {
        event: [
            {
                **wiring.hook_group,
                "hooks": [
                    {"type": "command", "command": shlex.join([*place.hook, event]), **wiring.hook_handler},
                ],
            }
        ]
        for event in profile.hook_events
    }


def _filled(text: str, place: Place) -> str:
    values = {"dir": place.folder, "name": place.name, "hook": shlex.join(place.hook)}
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _content(value: Any, table: dict[str, Any], place: Place) -> Any:
    match value:
        case "{hooks}":
            return table
        case str():
            return _filled(value, place)
        case Mapping():
            return {key: _content(each, table, place) for key, each in value.items()}
        case list() | tuple():
            return [_content(each, table, place) for each in value]
    return value


def _overrides(option: str, table: dict[str, Any]) -> list[str]:
    """codex: each event as one override, and a mark for each that says "reviewed".

    codex asks the person to review every hook that is new to it, at each start, because overrides are stored nowhere.
    The mark names exactly these commands, so nothing else is let through (its own option for that trusts every hook).
    """
    words = []
    marks = {}
    for event, groups in table.items():
        words += [option, f"hooks.{event}={_toml(groups)}"]
        label = _WORDS.sub("_", event).lower()
        marks[f"/<session-flags>/config.toml:{label}:0:0"] = {"trusted_hash": _mark(label, groups[0])}
    return [*words, option, f"hooks.state={_toml(marks)}"]


def _mark(label: str, group: Mapping[str, Any]) -> str:
    """codex's name for the content of a hook: SHA-256 of its JSON with sorted keys. Checked with 0.169.0."""
    handlers = [{"async": False, "timeout": DEFAULT_TIMEOUT_SEC, **handler} for handler in group["hooks"]]
    content = json.dumps(
        {"event_name": label, **group, "hooks": handlers}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def _toml(value: Any) -> str:
    """An inline value. JSON's strings are TOML's, but for DEL, which no path should hold."""
    match value:
        case Mapping():
            return "{" + ",".join(f"{json.dumps(key)}={_toml(each)}" for key, each in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_toml, value)) + "]"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
    return repr(value)
