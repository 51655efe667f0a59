"""Reads agents/*.toml and cspd.toml strictly: every problem of every file at once, with its place and value.

What is allowed is decided in `config`; unit files are written by `unitfile`.
"""

import re
import stat
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin

import attrs
import tomli_w

from cspd.config import (
    BUILT_IN_PROFILES,
    DaemonConfig,
    Invalid,
    UnitConfig,
    default_profile,
    name_problem,
    shown,
    with_hint,
)
from cspd.errors import CspError, nearest
from cspd.paths import Paths

KINDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "a table",
}
INTEGER_MAX = (1 << 63) - 1  # TOML promises 64 bits
SIZE_MAX = 1 << 20  # a larger file is not a configuration
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Document = dict[str, Any]
Config = TypeVar("Config")


class ConfigError(CspError):
    """Configuration that cannot be used; `data["problems"]` has one `file: place: sentence` for each."""

    def __init__(self, problems: list[str]) -> None:
        what = problems[0] if len(problems) == 1 else f"{len(problems)} problems"
        hint = "nothing was changed; correct the files and try again"
        super().__init__("bad-configuration", f"configuration: {what}", hint, {"problems": problems})

    @property
    def problems(self) -> list[str]:
        return list(self.data["problems"])


# --- from plain TOML to checked classes. Not cattrs: it makes an object after all of its fields were read,
# and attrs then stops at the first validator that refuses. Here every fault of a file is found in one pass.


@attrs.define
class Reader:
    """Collects the problems of one document. A method that found some returns None."""

    problems: list[str] = attrs.field(factory=list)

    def refuse(self, place: str, sentence: str) -> None:
        self.problems.append(f"{place}: {sentence}" if place else sentence)

    def table(self, table: Document, cls: type[Config], place: str = "") -> Config | None:
        """An object of this attrs class; unknown keys are refused, missing ones have their default."""
        count = len(self.problems)
        fields = attrs.fields_dict(cast("type[attrs.AttrsInstance]", cls))
        for key in sorted(table.keys() - fields.keys()):
            known = [name for name in fields if name != "name"]  # the file's name is the agent's name
            hint = nearest(key, known) or "known: " + ", ".join(known)
            self.refuse(joined(place, key), f"unknown key ({hint})")
        given = {}
        for name, field in fields.items():
            if name in table:
                given[name] = self.field(table[name], field, joined(place, name))
            elif field.default is attrs.NOTHING:
                self.refuse(joined(place, name), "required, but missing")
        if len(self.problems) > count:
            return None
        try:
            return cls(**given)
        except Invalid as exc:  # fields that do not fit together
            self.refuse_all(exc, place)
            return None

    def field(self, value: Any, field: "attrs.Attribute[Any]", place: str) -> Any:
        count = len(self.problems)
        read = self.value(value, str if field.type is Path else field.type, place)
        whole = len(self.problems) == count or isinstance(read, dict)  # faulty items are stood in for
        if field.validator is not None and whole:
            try:
                field.validator(None, field, field.converter(read) if callable(field.converter) else read)
            except Invalid as exc:
                self.refuse_all(exc, place)
        return read

    def value(self, value: Any, kind: Any, place: str) -> Any:
        origin, args = get_origin(kind), get_args(kind)
        if origin is Literal:
            return self.choice(value, args, place)
        expected: Any = dict if attrs.has(kind) or origin is dict else list if origin is tuple else kind
        if expected is float and type(value) is int and abs(value) <= INTEGER_MAX:
            value = float(value)
        if type(value) is not expected:  # not isinstance: True is an int
            self.refuse(place, f"got {shown(value)}, expected {KINDS[expected]}")
        elif (expected is float or expected is int) and not abs(value) <= INTEGER_MAX:  # nan is not, either
            self.refuse(place, f"got {shown(value)}, expected {KINDS[expected]} of ordinary size")
        elif attrs.has(kind):
            return self.table(value, kind, place)
        elif origin is dict:
            return {key: self.item(item, args[1], joined(place, key)) for key, item in value.items()}
        elif origin is tuple:
            return tuple(self.value(item, args[0], f"{place}[{i}]") for i, item in enumerate(value))
        return value

    def item(self, value: Any, kind: Any, place: str) -> Any:
        """One of a table of names; "" stands in for a faulty one, so that its name is still checked."""
        count = len(self.problems)
        read = self.value(value, kind, place)
        return read if len(self.problems) == count else ""

    def choice(self, value: Any, allowed: tuple[str, ...], place: str) -> Any:
        if value not in allowed:
            hint = nearest(value, allowed) if isinstance(value, str) else ""
            expected = ", ".join(map(repr, allowed))
            self.refuse(place, with_hint(f"got {shown(value)}, expected one of {expected}", hint))
        return value

    def refuse_all(self, error: Invalid, place: str) -> None:
        for key, sentence in error.problems:
            self.refuse(joined(place, key), sentence)


def joined(place: str, key: str) -> str:
    word = key if not key or BARE_KEY.fullmatch(key) else tomli_w.dumps({key: 0}).rpartition(" = ")[0]
    return f"{place}.{word}" if place and word else place or word


# --- reading


def read_text(path: Path) -> str:
    """Raises Invalid for what is not a readable text file. FileNotFoundError passes: some may be missing."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Invalid(("", "not a regular file"))  # opening a FIFO would wait for ever
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
        if len(data) > SIZE_MAX:
            raise Invalid(("", f"larger than {SIZE_MAX >> 20} MiB"))
        return data.decode()
    except UnicodeDecodeError as exc:
        raise Invalid(("", f"not UTF-8: byte {exc.object[exc.start]:#04x} at offset {exc.start}")) from exc
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise Invalid(("", f"cannot be read: {exc.strerror}")) from exc


def parsed(text: str) -> Document:
    try:
        return tomllib.loads(text)
    except RecursionError as exc:
        raise Invalid(("", "not TOML: nested too deeply")) from exc
    except ValueError as exc:  # TOMLDecodeError, with line and column; or an integer of thousands of digits
        raise Invalid(("", f"not TOML: {exc}")) from exc


def unit_at(path: Path, profiles: Collection[str] | None) -> tuple[UnitConfig | None, list[str]]:
    """The unit, or None and all problems of this file, each beginning with the file's name."""
    reader = Reader()
    unit = None
    try:
        unit = unit_from(parsed(read_text(path)), path.stem, profiles, reader)
    except FileNotFoundError:
        reader.refuse("", "cannot be read: no such file")
    except Invalid as exc:
        reader.refuse_all(exc, "")
    problems = [f"{path.parent.name}/{path.name}: {problem}" for problem in reader.problems]
    return (None if problems else unit), problems


def unit_from(document: Document, name: str, profiles: Collection[str] | None, reader: Reader) -> UnitConfig | None:
    if sentence := name_problem(name):
        reader.refuse("", f"the file's name is the agent's name: {sentence}")
        name = "x"  # a stand-in, so that the fault is not reported twice
    if "name" in document:
        reader.refuse("name", "unknown key (the file's name is the agent's name)")
    profile, command = document.get("profile"), document.get("command")
    if profiles is not None and isinstance(profile, str) and profile not in profiles:
        expected = ", ".join(map(repr, sorted(profiles)))
        hint = nearest(profile, profiles)
        reader.refuse("profile", with_hint(f"got {shown(profile)}, expected one of {expected}", hint))
        profile = "default"
    if profile is None and isinstance(command, list) and all(isinstance(word, str) for word in command):
        profile = default_profile(command, BUILT_IN_PROFILES if profiles is None else profiles)
    given = document | {"name": name} | ({} if profile is None else {"profile": profile})
    return reader.table(given, UnitConfig)


def daemon_at(path: Path) -> tuple[DaemonConfig | None, list[str]]:
    reader = Reader()
    daemon = None
    try:
        daemon = reader.table(parsed(read_text(path)), DaemonConfig)
    except FileNotFoundError:
        daemon = DaemonConfig()
    except Invalid as exc:
        reader.refuse_all(exc, "")
    return daemon, [f"{path.name}: {problem}" for problem in reader.problems]


def read_unit(path: Path, profiles: Collection[str] | None = None) -> UnitConfig:
    """The agent of this file. `profiles` are those that exist; None: any name is believed.

    Raises ConfigError with all problems.
    """
    unit, problems = unit_at(path, profiles)
    if unit is None:
        raise ConfigError(problems)
    return unit


def read_daemon(path: Path) -> DaemonConfig:
    """cspd.toml; a missing file is all defaults. Raises ConfigError with all problems."""
    daemon, problems = daemon_at(path)
    if daemon is None:
        raise ConfigError(problems)
    return daemon


def known_profiles(paths: Paths) -> frozenset[str]:
    """The built-in profiles and the person's own."""
    return BUILT_IN_PROFILES | {path.stem for path in toml_files(paths.profiles_dir)}


def toml_files(directory: Path) -> list[Path]:
    """The *.toml of a directory that may be missing. Hidden files are left out: they are editors' own."""
    try:
        return sorted(p for p in directory.iterdir() if p.suffix == ".toml" and not p.name.startswith("."))
    except FileNotFoundError:
        return []


@attrs.frozen
class Loaded:
    """What could be read; `broken` has the problems of the unit files that could not, by name."""

    daemon: DaemonConfig
    units: dict[str, UnitConfig]
    broken: dict[str, list[str]]


def load_readable(paths: Paths) -> Loaded:
    """What is configured, as far as it can be read: one bad unit file must not keep the other agents down.

    Raises ConfigError for cspd.toml, which is nobody else's, and for a directory that cannot be read.
    """
    daemon, problems = daemon_at(paths.daemon_file)
    units: dict[str, UnitConfig] = {}
    broken: dict[str, list[str]] = {}
    try:
        profiles, files = known_profiles(paths), toml_files(paths.units_dir)
    except OSError as exc:
        profiles, files = BUILT_IN_PROFILES, []
        problems.append(f"{Path(exc.filename).name}: cannot be read: {exc.strerror}")
    for path in files:
        unit, more = unit_at(path, profiles)
        if more or unit is None:
            broken[path.stem] = more
        else:
            units[unit.name] = unit
    if daemon is None or problems:
        raise ConfigError([*problems, *(line for lines in broken.values() for line in lines)])
    return Loaded(daemon, units, broken)


def load_all(paths: Paths) -> tuple[DaemonConfig, dict[str, UnitConfig]]:
    """Everything that is configured. Raises ConfigError with all problems of all files."""
    loaded = load_readable(paths)
    if loaded.broken:
        raise ConfigError([line for lines in loaded.broken.values() for line in lines])
    return loaded.daemon, loaded.units
