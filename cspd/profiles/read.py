"""Reads a profile: the rules that tell what an agent is doing and the times for typing into it, as TOML data.

Strict: every unknown key, wrong type and bad pattern is reported, all at once. Finding files is `find`'s.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from cspd.errors import CspError, nearest
from cspd.profiles.profile import (
    Activity,
    Box,
    Hook,
    Keywords,
    Once,
    Profile,
    Region,
    Rule,
    Typing,
    When,
    Wiring,
    WiringFile,
)
from cspd.profiles.reader import Reader, hint

KEYS = (
    *("extends", "programs", "versions_tested", "rule", "drop_rules", "typing", "box", "hooks", "wiring"),
    *("starting_sec", "poll_sec", "own_words_only", "keywords"),
)
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


def read_profile(name: str, texts: Mapping[str, str]) -> Profile:
    """The profile `name` out of all profile texts by name; `extends` is followed.

    Raises CspError "no-such-profile", or "bad-configuration" with every problem of the file that is wrong first.
    """
    return _read(name, texts, ())


def _read(name: str, texts: Mapping[str, str], path: tuple[str, ...]) -> Profile:
    if name in path:
        raise _bad([f"{path[-1]}.toml: extends: {name!r} extends itself by way of {' -> '.join((*path, name))}"])
    if name not in texts and path:
        raise _bad([f"{path[-1]}.toml: extends: got {name!r}, no profile{hint(name, texts)}"])
    if name not in texts:
        raise CspError("no-such-profile", f"profile: {name!r}: not known", nearest(name, texts))
    try:
        document = tomllib.loads(texts[name])
    except tomllib.TOMLDecodeError as exc:
        raise _bad([f"{name}.toml: {exc}"]) from exc
    reader = Reader(f"{name}.toml")
    parent = document.pop("extends", None)
    base = Profile(name, ())
    if isinstance(parent, str):
        base = _read(parent, texts, (*path, name))
    elif parent is not None:
        reader.problem("extends", f"got {parent!r}, expected the name of a profile")
    profile = _profile(reader, name, document, base)
    if reader.problems:
        raise _bad(reader.problems)
    return profile


def _bad(problems: list[str]) -> CspError:
    sentence = problems[0] if len(problems) == 1 else f"profiles: {len(problems)} problems: {'; '.join(problems)}"
    return CspError("bad-configuration", sentence, "correct the profile", {"problems": problems})


def _profile(reader: Reader, name: str, document: dict[str, Any], base: Profile) -> Profile:
    reader.known("", document, KEYS)
    dropped = reader.strings("drop_rules", document.get("drop_rules", []))
    for which in dropped:
        names = [rule.name for rule in base.rules]
        if which not in names:
            reader.problem("drop_rules", f"got {which!r}, no rule of the profile that it extends{hint(which, names)}")
    own = [_rule(reader, f"rule[{index}]", entry) for index, entry in enumerate(reader.tables("rule", document))]
    replaced = {*dropped, *(rule.name for rule in own)}
    inherited = [rule for rule in base.rules if rule.name not in replaced]
    return Profile(
        name=name,
        rules=tuple(sorted([*own, *inherited], key=lambda rule: -rule.priority)),
        programs=tuple(reader.strings("programs", document.get("programs", []))),
        versions_tested=tuple(reader.strings("versions_tested", document.get("versions_tested", []))),
        typing=_typing(reader, reader.table("typing", document), base.typing),
        box=_box(reader, reader.table("box", document), base.box),
        hooks=_hooks(reader, reader.table("hooks", document)) or base.hooks,
        wiring=_wiring(reader, reader.table("wiring", document)) if "wiring" in document else base.wiring,
        starting_sec=reader.seconds("starting_sec", document, base.starting_sec),
        keywords=_keywords(reader, document.get("keywords", base.keywords.value)),
        own_words_only=reader.flag("own_words_only", document.get("own_words_only", base.own_words_only)),
        poll_sec=reader.seconds("poll_sec", document, base.poll_sec),
    )


def _keywords(reader: Reader, value: Any) -> Keywords:
    return Keywords(reader.choice("keywords", value, [item.value for item in Keywords], Keywords.LINES.value))


def _rule(reader: Reader, path: str, entry: dict[str, Any]) -> Rule:
    reader.known(path, entry, [field.name for field in attrs.fields(Rule)])
    name = reader.word(f"{path}.name", entry.get("name"))
    path = f"rule {name!r}" if name else path
    activity = reader.choice(f"{path}.activity", entry.get("activity"), [item.value for item in Activity], "unknown")
    matches = reader.patterns(f"{path}.match", entry.get("match", []))
    region = Region(
        reader.choice(f"{path}.region", entry.get("region", "none"), [item.value for item in Region], "none")
    )
    if bool(matches) != (region is not Region.NONE):
        reader.problem(path, "`match` and `region` go together")
    when = reader.table("when", entry, path)
    known = [field.name for field in attrs.fields(When)]
    reader.known(f"{path}.when", when, known)
    facts = {key: reader.flag(f"{path}.when.{key}", value) for key, value in when.items() if key in known}
    if not matches and not facts:
        reader.problem(path, "asks for nothing, so it would always match: give `match` or `when`")
    return Rule(
        name=name,
        activity=Activity(activity),
        kind=reader.word(f"{path}.kind", entry.get("kind", "")),
        priority=reader.count(f"{path}.priority", entry.get("priority", 50), 0, 1000),
        region=region,
        rows=reader.count(f"{path}.rows", entry.get("rows", 30), 1, 1000),
        match=matches,
        unless=reader.patterns(f"{path}.unless", entry.get("unless", [])),
        silence_sec=reader.seconds("silence_sec", entry, 0.0, path),
        when=When(**facts),
    )


def _typing(reader: Reader, table: dict[str, Any], base: Typing) -> Typing:
    reader.known("typing", table, [field.name for field in attrs.fields(Typing)])
    times = ("human_quiet_sec", "settle_sec", "echo_timeout_sec", "retry_sec", "pause_sec")
    counts = ("enters", "batch_messages")
    words = ("queue_key", "interrupt_key", "mode_characters")
    choices = {"when_busy": ["hold", "type", "queue"], "proof": ["gone", "turn"]}
    given = {key: table.get(key, getattr(base, key)) for key in (*counts, *words, *choices)}
    found: dict[str, Any] = {key: reader.seconds(key, table, getattr(base, key), "typing") for key in times}
    found |= {key: reader.count(f"typing.{key}", given[key], 1, 10) for key in counts}
    found |= {key: reader.word(f"typing.{key}", given[key]) for key in words}
    found |= {key: reader.choice(f"typing.{key}", given[key], known, known[0]) for key, known in choices.items()}
    placeholders = reader.patterns("typing.placeholders", table.get("placeholders", [])) or base.placeholders
    typing = attrs.evolve(base, **found, placeholders=placeholders)
    if typing.when_busy == "queue" and not typing.queue_key:
        reader.problem("typing.when_busy", "got 'queue', but queue_key names no key")
    return typing


def _box(reader: Reader, table: dict[str, Any], base: Box) -> Box:
    reader.known("box", table, [field.name for field in attrs.fields(Box)])
    single = {
        key: reader.patterns(f"box.{key}", table[key]) for key in ("prompt", "end", "top", "prompt_end") if key in table
    }
    empty = reader.patterns("box.empty", table.get("empty", [])) or base.empty
    cursor = reader.flag("box.cursor", table.get("cursor", base.cursor))
    found = {key: patterns[0] for key, patterns in single.items() if patterns}
    return attrs.evolve(base, empty=empty, cursor=cursor, **found)


def _hooks(reader: Reader, table: dict[str, Any]) -> dict[str, Hook]:
    meanings = [item.value for item in Hook]
    return {event: Hook(reader.choice(f"hooks.{event}", value, meanings, "note")) for event, value in table.items()}


def _wiring(reader: Reader, table: dict[str, Any]) -> Wiring:
    reader.known("wiring", table, ("file", *(field.name for field in attrs.fields(Wiring) if field.name != "files")))
    environment = reader.table("environment", table, "wiring")
    once = reader.table("once", table, "wiring")
    known = [field.name for field in attrs.fields(Once)]
    reader.known("wiring.once", once, known)
    return Wiring(
        arguments=tuple(reader.strings("wiring.arguments", table.get("arguments", []))),
        environment={key: reader.word(f"wiring.environment.{key}", value) for key, value in environment.items()},
        files=tuple(_files(reader, table)),
        unless=tuple(reader.strings("wiring.unless", table.get("unless", []))),
        hook_group=reader.plain("wiring.hook_group", reader.table("hook_group", table, "wiring")),
        hook_handler=reader.plain("wiring.hook_handler", reader.table("hook_handler", table, "wiring")),
        hook_option=reader.word("wiring.hook_option", table.get("hook_option", "")),
        mcp_server=reader.plain("wiring.mcp_server", reader.table("mcp_server", table, "wiring")),
        mcp_option=reader.word("wiring.mcp_option", table.get("mcp_option", "")),
        once=Once(**{key: reader.word(f"wiring.once.{key}", once.get(key, "")) for key in known}),
    )


def _files(reader: Reader, table: dict[str, Any]) -> Iterator[WiringFile]:
    for index, entry in enumerate(reader.tables("file", table, "wiring")):
        path = f"wiring.file[{index}]"
        reader.known(path, entry, [field.name for field in attrs.fields(WiringFile)])
        name = reader.word(f"{path}.name", entry.get("name"))
        if not FILE_NAME.fullmatch(name):
            reader.problem(f"{path}.name", f"got {name!r}, expected a plain file name, in a folder at most")
        content = reader.plain(f"{path}.content", reader.table("content", entry, path))
        text = reader.word(f"{path}.text", entry.get("text", ""))
        if content and text:
            reader.problem(path, "`content` and `text` exclude each other")
        yield WiringFile(name, content, text, reader.flag(f"{path}.shared", entry.get("shared", False)))
