"""Reads a profile: the rules that tell what an agent is doing and the times for typing into it, as TOML data.

Strict: every unknown key, wrong type and bad pattern is reported, all at once. Finding files is the shell's.
"""

import enum
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from cspd.errors import CspError, nearest


class Activity(enum.Enum):
    """What an agent is doing, as far as it can be seen."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DIALOG = "dialog"
    UNKNOWN = "unknown"


class Region(enum.Enum):
    """Where a rule looks."""

    NONE = "none"  # facts of the tty only (`when`)
    SCREEN = "screen"
    BOTTOM = "bottom"  # the lowest `rows` rows, counted from the last one that shows something
    CURSOR_ROW = "cursor-row"
    BEFORE_CURSOR = "before-cursor"  # the line up to the cursor, joined over soft wraps
    TITLE = "title"


@attrs.frozen
class When:
    """Facts of the tty that a rule asks for; None asks for nothing."""

    bracketed_paste: bool | None = None
    alternate: bool | None = None
    canonical: bool | None = None
    echo: bool | None = None
    foreground: bool | None = None
    reading: bool | None = None  # true is also satisfied by "not known": not every kernel tells


@attrs.frozen
class Rule:
    """One vote. All `match` patterns must be found (each on some line of the region), no `unless` pattern may be."""

    name: str
    activity: Activity
    kind: str = ""  # of a dialog: password, choice, confirm, continue
    priority: int = 50
    region: Region = Region.NONE
    rows: int = 30
    match: tuple[re.Pattern[str], ...] = ()
    unless: tuple[re.Pattern[str], ...] = ()
    silence_sec: float = 0.0
    when: When = When()


@attrs.frozen
class Typing:
    """How one types into this program."""

    human_quiet_sec: float = 2.0  # no key of a person for so long
    settle_sec: float = 0.2  # between the echo and Enter
    echo_timeout_sec: float = 5.0
    retry_sec: float = 1.2  # Enter again when the text still stands in the box
    enters: int = 3  # so many in all
    pause_sec: float = 2.0  # a person's keys wait no longer
    when_busy: str = "hold"  # or "type": the program queues what it gets while busy
    placeholders: tuple[re.Pattern[str], ...] = ()  # what a long paste is shown as


@attrs.frozen
class Box:
    """Where the input stands on the screen."""

    prompt: re.Pattern[str] = re.compile(r"^[\s│┃|▌]*[>❯›](?=\s|$)")  # first row of a box: the lowest that matches
    end: re.Pattern[str] = re.compile(r"^\s*$|^\s*[─━═▄▀╰└╯┘]{3}")  # the row behind its last
    empty: tuple[re.Pattern[str], ...] = ()  # what an empty box shows
    prompt_end: re.Pattern[str] = re.compile(
        r"(>>>|^\.\.\.|[>❯›»➜λ$#%])\s*$"
    )  # the line before the cursor, nothing typed


@attrs.frozen
class Profile:
    name: str
    rules: tuple[Rule, ...]  # highest priority first
    typing: Typing = Typing()
    box: Box = Box()
    starting_sec: float = 10.0  # a blank screen means `starting` for so long
    poll_sec: float = 1.0  # what no output announces (who reads the tty) is looked at so often


def read_profile(name: str, texts: Mapping[str, str]) -> Profile:
    """The profile `name` out of all profile texts by name; `extends` is followed.

    Raises CspError "no-such-profile", or "bad-configuration" with every problem of the file that is wrong first.
    """
    return _read(name, texts, ())


def _read(name: str, texts: Mapping[str, str], path: tuple[str, ...]) -> Profile:
    if name in path:
        raise _bad([f"{path[-1]}.toml: extends: {name!r} extends itself by way of {' -> '.join((*path, name))}"])
    if name not in texts:
        raise CspError("no-such-profile", f"profile: {name!r}: not known", nearest(name, texts))
    try:
        document = tomllib.loads(texts[name])
    except tomllib.TOMLDecodeError as exc:
        raise _bad([f"{name}.toml: {exc}"]) from exc
    reader = _Reader(f"{name}.toml")
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


def _hint(word: str, known: Iterable[str]) -> str:
    close = nearest(word, known)
    return f" ({close})" if close else ""


def _bad(problems: list[str]) -> CspError:
    sentence = problems[0] if len(problems) == 1 else f"profiles: {len(problems)} problems: {'; '.join(problems)}"
    return CspError("bad-configuration", sentence, "correct the profile", {"problems": problems})


def _profile(reader: "_Reader", name: str, document: dict[str, Any], base: Profile) -> Profile:
    reader.known("", document, ("rule", "drop_rules", "typing", "box", "starting_sec", "poll_sec"))
    dropped = reader.strings("drop_rules", document.get("drop_rules", []))
    for which in dropped:
        names = [rule.name for rule in base.rules]
        if which not in names:
            reader.problem("drop_rules", f"got {which!r}, no rule of the profile that it extends{_hint(which, names)}")
    own = [_rule(reader, f"rule[{index}]", entry) for index, entry in enumerate(reader.tables("rule", document))]
    replaced = {*dropped, *(rule.name for rule in own)}
    inherited = [rule for rule in base.rules if rule.name not in replaced]
    return Profile(
        name=name,
        rules=tuple(sorted([*own, *inherited], key=lambda rule: -rule.priority)),
        typing=_typing(reader, reader.table("typing", document), base.typing),
        box=_box(reader, reader.table("box", document), base.box),
        starting_sec=reader.seconds("starting_sec", document, base.starting_sec),
        poll_sec=reader.seconds("poll_sec", document, base.poll_sec),
    )


def _rule(reader: "_Reader", path: str, entry: dict[str, Any]) -> Rule:
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


def _typing(reader: "_Reader", table: dict[str, Any], base: Typing) -> Typing:
    reader.known("typing", table, [field.name for field in attrs.fields(Typing)])
    times = ("human_quiet_sec", "settle_sec", "echo_timeout_sec", "retry_sec", "pause_sec")
    placeholders = reader.patterns("typing.placeholders", table.get("placeholders", []))
    return attrs.evolve(
        base,
        **{key: reader.seconds(key, table, getattr(base, key), "typing") for key in times},
        enters=reader.count("typing.enters", table.get("enters", base.enters), 1, 10),
        when_busy=reader.choice("typing.when_busy", table.get("when_busy", base.when_busy), ["hold", "type"], "hold"),
        placeholders=placeholders or base.placeholders,
    )


def _box(reader: "_Reader", table: dict[str, Any], base: Box) -> Box:
    reader.known("box", table, [field.name for field in attrs.fields(Box)])
    single = {key: reader.patterns(f"box.{key}", table[key]) for key in ("prompt", "end", "prompt_end") if key in table}
    empty = reader.patterns("box.empty", table.get("empty", [])) or base.empty
    return attrs.evolve(base, empty=empty, **{key: found[0] for key, found in single.items() if found})


@attrs.define
class _Reader:
    """Takes values out of a TOML document without coercion and writes down what is wrong."""

    file: str
    problems: list[str] = attrs.field(factory=list)

    def problem(self, path: str, why: str) -> None:
        self.problems.append(f"{self.file}: {path}: {why}")

    def known(self, path: str, table: Mapping[str, Any], names: Any) -> None:
        for key in table:
            if key not in names:
                where = f"{path}.{key}" if path else key
                self.problem(where, f"unknown key{_hint(key, names)}")

    def table(self, key: str, parent: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        value = parent.get(key, {})
        if isinstance(value, dict):
            return value
        self.problem(f"{path}.{key}" if path else key, f"got {value!r}, expected a table")
        return {}

    def tables(self, key: str, parent: Mapping[str, Any]) -> list[dict[str, Any]]:
        value = parent.get(key, [])
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            return value
        self.problem(key, f"got {value!r}, expected [[{key}]] tables")
        return []

    def strings(self, path: str, value: Any) -> list[str]:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return value
        self.problem(path, f"got {value!r}, expected a list of strings")
        return []

    def patterns(self, path: str, value: Any) -> tuple[re.Pattern[str], ...]:
        compiled = []
        for text in self.strings(path, [value] if isinstance(value, str) else value):
            try:
                compiled.append(re.compile(text))
            except re.error as exc:
                self.problem(path, f"got {text!r}, not a regular expression: {exc}")
        return tuple(compiled)

    def word(self, path: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        self.problem(path, f"got {value!r}, expected a string")
        return ""

    def choice(self, path: str, value: Any, words: list[str], default: str) -> str:
        if value in words:
            return str(value)
        self.problem(path, f"got {value!r}, expected one of {', '.join(map(repr, words))}{_hint(str(value), words)}")
        return default

    def flag(self, path: str, value: Any) -> bool:
        if not isinstance(value, bool):
            self.problem(path, f"got {value!r}, expected true or false")
        return bool(value)

    def count(self, path: str, value: Any, low: int, high: int) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.problem(path, f"got {value!r}, expected a whole number from {low} to {high}")
        return low

    def seconds(self, key: str, table: Mapping[str, Any], default: float, path: str = "") -> float:
        value = table.get(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 3600:
            return float(value)
        self.problem(f"{path}.{key}" if path else key, f"got {value!r}, expected seconds from 0 to 3600")
        return default
