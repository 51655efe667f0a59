"""Decides what is added to an agent's command, environment and files: the program's hooks reach us, it has our tools.

The person's own configuration is never touched. Files are written, and the command is started, by others.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from cspd.profiles.profile import Profile, WiringFile

_PLACEHOLDER = re.compile(r"\{(dir|shared|home|name|hook)\}")
_WORDS = re.compile(r"(?<!^)(?=[A-Z])")
DEFAULT_TIMEOUT_SEC = 600  # codex's own, which it counts into the mark
INSIDE_ONLY = 'test -z "$CSP_AGENT" || '  # before hooks that the program also calls where it is no agent of ours


@attrs.frozen
class Place:
    """Where the wiring of one agent lives. `cspctl`: the words that run it."""

    name: str
    folder: str
    cspctl: tuple[str, ...]
    shared: str = ""  # the folder of files for all agents of the profile
    home: str = ""  # of the person, as the agent sees it


@attrs.frozen
class Wired:
    """The additions. `why_not`: nothing is added, for this reason."""

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = attrs.field(factory=dict)
    files: Mapping[str, str] = attrs.field(factory=dict)  # by path
    why_not: str = ""


def wire(profile: Profile, command: Sequence[str], place: Place) -> Wired:
    """What to add to this command."""
    wiring = profile.wiring
    in_the_way = next((word for word in command if word.partition("=")[0] in (*wiring.unless, "--")), None)
    if in_the_way is not None and (wiring.arguments or wiring.hook_option or wiring.mcp_option):
        return Wired(why_not=f"the command has {in_the_way!r} already")
    table = _hook_table(profile, place)
    arguments = [_filled(word, place) for word in wiring.arguments]
    if wiring.hook_option and table:
        arguments += _overrides(wiring.hook_option, table)
    if wiring.mcp_option:
        arguments += [wiring.mcp_option, f"mcp_servers.csp={_toml(_mcp_server(profile, place))}"]
    return Wired(
        tuple(arguments),
        {key: _filled(value, place) for key, value in wiring.environment.items()},
        dict(_file(profile, file, place) for file in wiring.files),
    )


def to_do_once(profile: Profile, place: Place) -> tuple[str, str]:
    """-> (the command that the person must run once, the path that is there when it was); empty when there is none."""
    once = profile.wiring.once
    return _filled(once.command, place), _filled(once.sign, place)


def _file(profile: Profile, file: WiringFile, place: Place) -> tuple[str, str]:
    """-> (its path, its text)."""
    path = f"{place.shared if file.shared else place.folder}/{file.name}"
    if file.text:
        return path, _filled(file.text, place)
    special = {
        "{hooks}": _hook_table(profile, place, INSIDE_ONLY if file.shared else ""),
        "{mcp}": _mcp_server(profile, place),
    }
    return path, json.dumps(_content(file.content, special, place), indent=1) + "\n"


def _hook_table(profile: Profile, place: Place, before: str = "") -> dict[str, Any]:
    """claude, codex and gemini give it the same shape: event -> groups -> handlers."""
    wiring = profile.wiring
    return {
        event: [
            {
                **wiring.hook_group,
                "hooks": [
                    {"type": "command", "command": f"{before}{_hook(place)} {event}", **wiring.hook_handler},
                ],
            }
        ]
        for event in profile.hook_events
    }


def _hook(place: Place) -> str:
    return shlex.join([*place.cspctl, "hook"])


def _mcp_server(profile: Profile, place: Place) -> dict[str, Any]:
    """The entry that all of them share. Where there is no agent, it must not speak for the person."""
    program, *arguments = place.cspctl
    return {"command": program, "args": [*arguments, "mcp", "--agent-only"], **profile.wiring.mcp_server}


def _filled(text: str, place: Place) -> str:
    values = {
        "dir": place.folder,
        "shared": place.shared,
        "home": place.home,
        "name": place.name,
        "hook": _hook(place),
    }
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _content(value: Any, special: Mapping[str, Any], place: Place) -> Any:
    match value:
        case str() if value in special:
            return special[value]
        case str():
            return _filled(value, place)
        case Mapping():
            return {key: _content(each, special, place) for key, each in value.items()}
        case list() | tuple():
            return [_content(each, special, place) for each in value]
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
        marks[f"/<session-flags>/config.toml:{label}:0:0"] = {"trusted_hash": mark_of(label, groups[0])}
    return [*words, option, f"hooks.state={_toml(marks)}"]


def mark_of(label: str, group: Mapping[str, Any]) -> str:
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
