"""The texts of `cspctl help`, fitted to the terminal: written once, wide, and broken between words where it ends."""

import re
import shutil
import textwrap
from collections.abc import Iterator

COLUMNS_MAX = 100  # a longer line is hard to read
_TOGETHER = re.compile(r"\[[^][]*\]")  # an option and its value


def columns() -> int:
    """Of the terminal; 80 where there is none."""
    return min(shutil.get_terminal_size().columns, COLUMNS_MAX)


def usage(text: str, columns: int) -> str:
    """A usage line, whose further lines stand below its first word."""
    kept = _TOGETHER.sub(lambda option: option[0].replace(" ", "\0"), text)
    head = kept[: kept.find(" ") + 1]
    return _fill(kept, columns, " " * len(head)).replace("\0", " ")


def fitted(text: str, columns: int) -> str:
    """Lines that begin in the first column flow together up to an empty or an indented one; those below that stand in
    two columns keep them.
    """
    return "\n".join(_paragraphs(text.splitlines(), columns))


def _paragraphs(lines: list[str], columns: int) -> Iterator[str]:
    flowing: list[str] = []
    for line in [*lines, ""]:
        if line.strip() and not line.startswith(" "):
            flowing.append(line)
            continue
        if flowing:
            yield _fill(" ".join(flowing), columns)
            flowing = []
        yield _fill(line, columns, " " * _second_column(line))


def _second_column(line: str) -> int:
    """Where the explanation begins, behind two blanks or more; without one, behind the indentation."""
    found = re.match(r"( *)(?:\S+(?: \S+)*  +(?=\S))?", line)
    return found.end() if found else 0


def _fill(line: str, columns: int, indent: str = "") -> str:
    whole = textwrap.fill(
        line,
        columns,
        subsequent_indent=indent if 2 * len(indent) <= columns else "  ",
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
    return whole.rstrip()
