"""The grammar of keywords: which lines of an agent's words are a message to somebody, and where it ends. Pure.

Knows lines only. Whether they are an exact answer or lines of a terminal, and whether the agent means them, is for
`intent` and the shell to decide. Unknown names are told as they stand: who exists is cspd's to know.
"""

import re
from collections.abc import Mapping

import attrs

from cspd.paths import AGENT_NAME

KEYWORD = "@{name}:"
_OPEN = re.compile(r"<{3,}")
_CODE = re.compile(r"\s*(?:[-*+]\s+|\d{1,9}[.)]\s+)?(`{3,}(?=[^`]*$)|~{3,})")


@attrs.frozen
class Said:
    """One message for somebody; `to` is an agent's name, "all" or "human"."""

    to: str
    content: str


@attrs.frozen
class Grammar:
    """What a line begins with that is meant for somebody. `names`: further names, and whom they stand for."""

    keyword: str = KEYWORD
    names: Mapping[str, str] = attrs.field(factory=dict)
    _line: re.Pattern[str] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        before, _, behind = self.keyword.partition("{name}")
        known = "|".join([*map(re.escape, sorted(self.names, key=len, reverse=True)), AGENT_NAME.pattern])
        # Models like to write **@name:** and **@name**:
        line = rf" {{0,3}}([*_]{{0,3}}){re.escape(before)}({known})(\1{re.escape(behind)}|{re.escape(behind)}\1)(.*)"
        object.__setattr__(self, "_line", re.compile(line))

    @property
    def begin(self) -> str:
        """What stands in every line that could be meant."""
        return self.keyword.partition("{name}")[0].strip()

    def read(self, line: str) -> tuple[str, str] | None:
        """Whom this line names, and what follows."""
        found = self._line.fullmatch(line)
        return (self.names.get(found[2], found[2]), found[4].strip()) if found else None


@attrs.define
class Listener:
    """Puts lines together to messages.

    A message goes on until an empty line or the next keyword; a code block that begins within it belongs to it. `<<<`
    behind the keyword, alone, opens one that goes on until `>>>` on a line of its own. What stands in any other code
    block is said to nobody.
    """

    grammar: Grammar
    _to: str = ""  # of the message that is open
    _lines: list[str] = attrs.field(factory=list)
    _close: str = ""  # the line that ends a message in brackets
    _code: str = ""  # the mark that ends a code block

    @property
    def open(self) -> bool:
        """Could the next line belong to this one?"""
        return bool(self._to or self._code)

    def line(self, text: str) -> list[Said]:
        """Take one line; -> the message that ends with it or before it."""
        text = text.rstrip()
        if self._close:
            return self._flush() if text.strip() == self._close else self._add(text)
        if self._code:
            mark = text.strip()
            if len(mark) >= len(self._code) and not mark.strip(self._code[0]):
                self._code = ""
            return self._add(text)
        found = self.grammar.read(text)
        if found is not None:
            said = self._flush()
            self._to, rest = found
            if _OPEN.fullmatch(rest):
                self._close = ">" * len(rest)
            elif rest:
                self._add(rest)
            return said
        if not text.strip():
            return self._flush()
        if opened := _CODE.match(text):
            self._code = opened[1]
        return self._add(text)

    def end(self) -> list[Said]:
        """There are no more lines."""
        said = self._flush()
        self._code = ""
        return said

    def cut(self) -> list[Said]:
        """A line came that cannot be read: what is surely whole is said, brackets without their end are not."""
        if self._close or self._code:
            self._to = ""
        return self.end()

    def _add(self, text: str) -> list[Said]:
        if self._to:
            self._lines.append(text)
        return []

    def _flush(self) -> list[Said]:
        to, lines = self._to, self._lines
        self._to, self._lines, self._close = "", [], ""
        content = "\n".join(lines).strip("\n").rstrip()
        return [Said(to, content)] if to and content.strip() else []


def spoken(text: str, grammar: Grammar) -> list[Said]:
    """The messages in an answer, which is exact and whole."""
    listener = Listener(grammar)
    said = [each for line in text.replace("\r\n", "\n").split("\n") for each in listener.line(line)]
    return said + listener.end()
