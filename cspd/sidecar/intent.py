"""Hears what a line-oriented program says to others: new lines of its output that begin with `@NAME:` or `@all:`.

Reads raw output bytes, cut anywhere, and never hears an echo, a draft, a redraw or a file that is displayed; when in
doubt it hears nothing. Which programs are heard, and when not to listen, is the shell's to decide.
"""

import codecs
import re
from collections import deque

import attrs

from cspd.sidecar.speech import Grammar, Listener, Said

_RUN = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
_COLOUR = re.compile("\x1b\\[[0-9;:]*m")
_SEQUENCE = re.compile(r"\x1b\[([0-?]*)([ -/]*)([@-~])")
_OPEN_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*")
_KEYS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b.?")  # pasted brackets and keys that leave no letters in a line
_TYPED = re.compile(r"[^\x00-\x1f\x7f]+|[\r\n\b\x7f\x03\x15]")
_ALTERNATE = re.compile(rb"\x1b\[\?(?:47|1047|1049)([hl])")
_STRING_END = re.compile("\x1b\\\\|\x07|\x9c")

LINE_MAX = 64 * 1024  # characters; the limit of a message's content
STRING_MAX = 64 * 1024  # a longer OSC or DCS was none
WRITTEN_MAX = 64  # lines beginning with `@name:` that are remembered as typed
HEARINGS = 2  # of a typed line: the terminal's echo, and a program that repeats what it reads
# A program that says something prints a little and reads its input again; a file that is displayed is long. The same
# without a pause for AGE_SEC is judged in parts, or nobody would hear a program that always prints.
BURST_LINES = 300
BURST_SAID = 8
BURST_SIZE = 256 * 1024  # bytes
TAIL = 4096  # of what is passed over: more rows than a terminal has
AGE_SEC = 5.0
PAUSE_SEC = 2.0  # no output for so long ends a burst, also of a program of which no rule knows whether it reads
SHORT = 128  # most sequences; only for a longer one all that follows is copied
LOST = 1 << 20  # rows to go until the cursor is surely at the bottom again


@attrs.define
class _Written:
    line: str
    left: int = HEARINGS


@attrs.define
class Ear:
    """Assembles lines from the output of one incarnation, and messages from lines.

    What is heard is kept until the program pauses: only then is it known whether it said something or displayed a
    file. `rows`: the terminal's height. `fresh`: the first bytes begin a line (not so for a program that ran before we
    listened).
    """

    rows: int = 40
    fresh: bool = True
    listener: Listener = attrs.field(factory=lambda: Listener(Grammar()))
    _said: list[Said] = attrs.field(factory=list)
    _lines: int = 0  # since the last pause, or since it was judged last
    _size: int = 0
    _since: float | None = None
    _flood: bool = False
    _decode: codecs.IncrementalDecoder = attrs.field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )
    _open: str = ""  # a cut escape sequence
    _line: str = ""
    _column: int = 0
    _returned: bool = False  # CR came; text now would overwrite the line
    _tainted: bool = False
    _below: int = 0  # rows that were written before and stand below the cursor; LOST: not known
    _alternate: bool = False
    _typing: str = ""
    _written: deque[_Written] = attrs.field(factory=lambda: deque(maxlen=WRITTEN_MAX))
    _entered: deque[str] = attrs.field(factory=lambda: deque(maxlen=WRITTEN_MAX))  # since the last pause, any line

    def __attrs_post_init__(self) -> None:
        self._tainted = self._flood = not self.fresh

    @property
    def grammar(self) -> Grammar:
        return self.listener.grammar

    @grammar.setter
    def grammar(self, grammar: Grammar) -> None:
        if grammar != self.listener.grammar:
            self._said += self.listener.cut()
            self.listener = Listener(grammar)

    @property
    def waits(self) -> bool:
        """Is something to be judged at the next pause?"""
        return self._since is not None

    def paused(self) -> list[Said]:
        """The program reads its input, or has been silent for PAUSE_SEC: what it has said since the last pause."""
        said = self._judged()
        self._flood = False
        self._entered.clear()
        return said

    def _judged(self) -> list[Said]:
        said = self._said + self.listener.end()
        self._flood = self._flood or len(said) > BURST_SAID or self._lines > BURST_LINES or self._size > BURST_SIZE
        self._said, self._lines, self._size, self._since = [], 0, 0, None
        return [] if self._flood else said

    def wrote_bytes(self, data: bytes) -> None:
        """The same, of a paste too: of lines that speak to nobody only the last ones are decoded and looked at."""
        begin = self.grammar.begin
        if begin not in self._typing and begin.encode() not in data:
            _before, *last = data.replace(b"\n", b"\r").rsplit(b"\r", WRITTEN_MAX + 1)
            if len(last) > WRITTEN_MAX:
                data = b"\r".join(last)
        self.wrote(data.decode("utf-8", "replace"))

    def wrote(self, text: str) -> None:
        """This was typed into the terminal, by us or by a person, in any pieces: its echo is nobody's speech."""
        self._said += self.listener.cut()
        text = _KEYS.sub("", text)
        if self.grammar.begin not in self._typing + text:
            text = self._past_lines(text)
        for run in _TYPED.findall(text):
            match run:
                case "\r" | "\n":
                    self._remember(self._typing)
                    self._enter(self._typing)
                    self._typing = ""
                    self._below = 0  # Enter: what the program prints now, it prints new
                case "\x7f" | "\b":
                    self._typing = self._typing[:-1]
                case "\x03" | "\x15":
                    self._typing = ""
                case _:
                    self._typing = (self._typing + run)[-LINE_MAX:]
        if len(text) > 1:
            self._remember(self._typing)  # a paste may be echoed as lines before its Enter

    def _past_lines(self, text: str) -> str:
        """What follows the last Enter: the lines before it speak to nobody."""
        end = max(text.rfind("\r"), text.rfind("\n")) + 1
        if end:
            for line in (self._typing + text[:end]).replace("\n", "\r").rsplit("\r", WRITTEN_MAX)[-WRITTEN_MAX:]:
                self._enter(line)
            self._typing, self._below = "", 0
        return text[end:]

    def _enter(self, line: str) -> None:
        if line.strip():
            self._entered.append(line.strip())

    def _remember(self, line: str) -> None:
        at = line.find(self.grammar.begin)
        spoken = line[at:].strip() if at >= 0 else ""
        if self.grammar.read(spoken) is None:
            return
        known = next((entry for entry in self._written if entry.line == spoken), None)
        if known is None:
            self._written.append(_Written(spoken))
        else:
            known.left = HEARINGS

    def hear(self, data: bytes, now: float, *, listening: bool) -> list[Said]:
        """Take some output. Not `listening`: its lines are followed, not heard. -> as from `paused`, of a program that
        does not pause."""
        if self._since is None:
            self._since = now
        self._size += len(data)
        self._flood = self._flood or self._lines > BURST_LINES or self._size > BURST_SIZE
        if self._flood and len(data) > TAIL:
            self._pass_over(data, listening)
        else:
            self._follow(data, listening)
        return self._judged() if now >= self._since + AGE_SEC else []

    def _pass_over(self, data: bytes, listening: bool) -> None:
        """Nothing of a flood is heard, so only its end is followed, for the lines that come after the next pause.

        Following all of it took 200 ms a megabyte, more than everything else that a sidecar does with it.
        """
        if switched := _ALTERNATE.findall(data):
            self._alternate = switched[-1] == b"h"
        self.listener.cut()
        self._said, self._line, self._open = [], "", ""
        self._decode.reset()
        self._lose()
        tail = data[-TAIL:]
        self._follow(tail[tail.find(b"\n") + 1 :], listening)

    def _follow(self, data: bytes, listening: bool) -> None:
        rest = self._open + self._decode.decode(data)
        self._open = ""
        self._tainted = self._tainted or not listening
        at = self._skip(rest, listening)
        while at < len(rest):
            run = _RUN.match(rest, at)
            if run is not None:
                self._text(run[0])
                at = run.end()
                continue
            if rest[at] == "\x1b":
                size = self._escape(rest[at : at + SHORT]) or self._escape(rest[at:])
                if size == 0:
                    self._open = rest[at:]
                    break
                at += size
                continue
            if rest[at] == "\n":
                self._line_ended()
                self._tainted = self._tainted or not listening
            else:
                self._char(rest[at])
            at += 1

    def _skip(self, rest: str, listening: bool) -> int:
        """Where to begin: output without names and motions is passed over, or a long listing would cost seconds."""
        if not listening or self._below or self._alternate or self.listener.open or "```" in rest or "~~~" in rest:
            return 0
        if self.grammar.begin in self._line + rest:
            return 0
        if "\x1b" in _COLOUR.sub("", rest):
            return 0
        at = rest.rfind("\n") + 1
        if at:
            self._lines += rest.count("\n")
            self._line, self._column, self._returned, self._tainted = "", 0, False, False
        return at

    def _line_ended(self) -> None:
        text, heard = self._line, not self._tainted
        self._lines += 1
        self._line, self._column, self._returned = "", 0, False
        if self._below:
            self._below -= 1
            if self._below > LOST // 2 and LOST - self._below >= self.rows:
                self._below = 0  # after so many line feeds the cursor is at the bottom, wherever it was
        self._tainted = self._below > 0 or self._alternate
        echo = self._shows_entered(text) or (self.grammar.read(text) is not None and self._is_echo(text.strip()))
        if heard and not echo:
            self._said += self.listener.line(text)
        else:
            self._said += self.listener.cut()
        if len(self._said) > BURST_SAID:
            self._flood, self._said = True, []

    def _shows_entered(self, text: str) -> bool:
        """Does a line that was typed ahead show here, behind the prompt? Each does so once."""
        for line in self._entered:
            if text.rstrip().endswith(line) and not self.grammar.read(line):
                self._entered.remove(line)
                return True
        return False

    def _is_echo(self, text: str) -> bool:
        for entry in self._written:
            if entry.line == text:
                entry.left -= 1
                if entry.left == 0:
                    self._written.remove(entry)
                return True
        return False

    def _char(self, char: str) -> None:
        match char:
            case "\r":
                self._column, self._returned = 0, True
            case "\b":
                self._column = max(0, self._column - 1)
            case "\t":
                self._put(" " * (8 - self._column % 8))
            case "\v" | "\f":
                self._tainted = True

    def _text(self, text: str) -> None:
        if self._returned and self._line:
            self._tainted = True  # drawn over: a progress line, or a draft that a line editor wraps
        self._put(text)

    def _put(self, text: str) -> None:
        self._returned = False
        if len(self._line) + len(text) > LINE_MAX:
            self._tainted = True
            return
        head = self._line[: self._column].ljust(self._column)
        self._column += len(text)
        self._line = head + text + self._line[self._column :]

    def _escape(self, rest: str) -> int:
        """Follow the sequence at the beginning of `rest`; its size, 0 when it is cut."""
        if len(rest) == 1:
            return 0
        if rest[1] == "[":
            return self._control_sequence(rest)
        if rest[1] in "]P_^X":
            end = _STRING_END.search(rest, 2)
            if end is None:
                return 0 if len(rest) < STRING_MAX else 2
            return end.end()
        if rest[1] in " #%()*+-./":
            return 0 if len(rest) == 2 else 3
        if rest[1] in "DEMc78":
            self._lose()
        return 2

    def _control_sequence(self, rest: str) -> int:
        found = _SEQUENCE.match(rest)
        if found is None:
            opened = _OPEN_SEQUENCE.match(rest)
            size = opened.end() if opened else 2
            return 0 if size == len(rest) and size < 64 else size
        params, final = found[1], found[3]
        if found[2] == "" and params[:1] not in ("<", "=", ">"):
            self._obey(params, final)
        return found.end()

    def _obey(self, params: str, final: str) -> None:
        number = int(params) if params.isascii() and params.isdigit() and len(params) < 5 else 0
        match final:
            case "m" | "n" | "c" | "q" | "t" | "g":
                pass  # colours, questions and the like move nothing
            case "h" | "l" if params[:1] == "?":
                self._mode(params[1:].split(";"), final == "h")
            case "K":
                self._erase(number)
            case "C":
                self._column += max(1, number)
            case "D":
                self._column = max(0, self._column - max(1, number))
            case "G" | "`":
                self._column = max(0, number - 1)
            case "P" | "@" | "X":
                self._tainted = True  # edits inside a line: only line editors do that
            case "A" | "F" if self._below < LOST // 2:
                self._below += max(1, number)
                self._tainted = True
            case "B" | "E" if self._below < LOST // 2:
                self._below = max(0, self._below - max(1, number))
                self._tainted = True
            case "J" if number == 0 and self._below == 0:
                self._erase(0)  # nothing stands below: shells do this before each prompt
            case _:
                self._lose()
        self._column = min(self._column, LINE_MAX)

    def _mode(self, modes: list[str], on: bool) -> None:
        if any(mode in ("47", "1047", "1049") for mode in modes):
            self._alternate = on
            self._lose()

    def _erase(self, how: int) -> None:
        if how == 2:
            self._line = ""
        elif how == 0:
            self._line = self._line[: self._column]
        else:
            self._tainted = True

    def _lose(self) -> None:
        """The cursor went where we cannot follow."""
        self._tainted = True
        self._below = LOST
