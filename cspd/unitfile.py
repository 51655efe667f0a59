"""Writes unit files whole, and changes one line of them without harming what a person wrote.

Reading and checking is `configfile`'s.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from cspd.config import Invalid, shown
from cspd.configfile import Document, joined, parsed, read_text, read_unit
from cspd.errors import CspError

AUTOSTART_KEY = r"""^([ \t]*["']?autostart["']?[ \t]*=[ \t]*)(?:true|false)\b"""
AUTOSTART_LINE = re.compile(AUTOSTART_KEY, re.MULTILINE)
TABLE_LINE = re.compile(r"^[ \t]*\[", re.MULTILINE)


def render_unit(document: Mapping[str, Any]) -> str:
    """TOML of a new unit file. The command stays on one line, as a person would write it."""
    lines = []
    for key, value in document.items():
        text = tomli_w.dumps({key: value})
        if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            items = ", ".join(tomli_w.dumps({"x": item}).strip().removeprefix("x = ") for item in value)
            text = f"{joined('', key)} = [{items}]\n"
        lines.append((isinstance(value, Mapping), "\n" + text if isinstance(value, Mapping) else text))
    # a table ends the top level: every plain key has to stand before the first one
    return "".join(text for _, text in sorted(lines, key=lambda line: line[0]))


def write_unit(path: Path, text: str, *, replace: bool) -> None:
    """Put `text` there whole or not at all: a new file (0600, it may hold secrets), fsync, then the name.

    Does not check the text. A symbolic link stays one, and a replaced file keeps its mode. Raises CspError
    "exists" when the file is there and `replace` is false, and "cannot-write".
    """
    target = Path(os.path.realpath(path))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(target.stat().st_mode) if replace and target.exists() else 0o600
        with tempfile.NamedTemporaryFile("wb", dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            try:
                os.fchmod(file.fileno(), mode)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
                if replace:
                    os.replace(file.name, target)
                else:
                    os.link(file.name, target)  # unlike a rename it fails when the name is taken
            finally:
                Path(file.name).unlink(missing_ok=True)
        sync_directory(target.parent)
    except FileExistsError as exc:
        hint = f"cspctl edit {path.stem}, or cspctl remove {path.stem} first"
        raise CspError("exists", f"unit file: {path}: is there already", hint) from exc
    except UnicodeEncodeError as exc:  # an argument of `cspctl add` that is not UTF-8
        word = shown(exc.object[exc.start : exc.end])
        raise CspError("cannot-write", f"unit file: {path}: TOML cannot hold {word}") from exc
    except OSError as exc:
        raise CspError("cannot-write", f"unit file: {path}: cannot be written: {exc.strerror}") from exc


def sync_directory(path: Path) -> None:
    """A rename is on disk only when its directory is."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_autostart(path: Path, value: bool) -> None:
    """Change this one line of the person's file, or insert it before the first table, and nothing else.

    Raises CspError "no-such-agent" without the file, ConfigError when it has problems.
    """
    try:
        text = read_text(path)
    except FileNotFoundError as exc:
        raise CspError("no-such-agent", f"agent: {path.stem}: has no unit file", "cspctl list shows all") from exc
    except Invalid:
        text = ""  # read_unit says it with the file's name
    before = read_unit(path)
    document = parsed(text)
    if document.get("autostart") is value:
        return
    for candidate in with_autostart(text, value):
        # the expression may have hit the inside of a string or an array: only the parser knows
        if same(candidate, document | {"autostart": value}):
            write_unit(path, candidate, replace=True)
            return
    sentence = f"unit file: {path}: no place found for autostart of {before.name}"
    raise CspError("cannot-write", sentence, f"write `autostart = {str(value).lower()}` above the first table")


def with_autostart(text: str, value: bool) -> Iterator[str]:
    """Texts to try, the likeliest first."""
    word = str(value).lower()
    for found in AUTOSTART_LINE.finditer(text):
        yield text[: found.start()] + found[1] + word + text[found.end() :]
    newline = "\r\n" if "\r\n" in text else "\n"
    line = f"autostart = {word}{newline}"
    for found in TABLE_LINE.finditer(text):
        at = above_comments(text, found.start())
        yield text[:at] + line + text[at:]
    yield text + ("" if not text or text.endswith("\n") else newline) + line


def above_comments(text: str, at: int) -> int:
    """Where the blank and comment lines just before `at` begin: they belong to what follows."""
    lines = text[:at].splitlines(keepends=True)
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        at -= len(lines.pop())
    return at


def same(text: str, document: Document) -> bool:
    try:
        return parsed(text) == document
    except Invalid:
        return False
