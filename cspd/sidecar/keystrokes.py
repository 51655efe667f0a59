"""Tells what a person's terminal sent: keys, pastes, or reports that the terminal itself gave as answers.

Classification only: every byte goes on untouched and at once, also in the middle of a sequence. What the keys mean for
typing a message is the arbiter's to decide.
"""

import enum
import re

import attrs


class Kind(enum.Enum):
    TEXT = "text"
    PASTE = "paste"  # bracketed; `text` is its inside
    BULK = "bulk"  # lines that came faster than anybody types, up to the last Enter: a paste without brackets
    ENTER = "enter"
    BACKSPACE = "backspace"
    KILL_LINE = "kill-line"  # ^U
    KILL_WORD = "kill-word"  # ^W
    INTERRUPT = "interrupt"  # ^C
    ESCAPE = "escape"
    EDIT = "edit"  # any other key: arrows, Tab, a line feed, Alt and Ctrl combinations
    REPORT = "report"  # the terminal's answer to a question of the program
    POINTER = "pointer"  # mouse, focus, key releases: nothing that is typed
    PART = "part"  # the beginning of a sequence; the piece that ends it says what it was


_NOT_TYPED = frozenset({Kind.REPORT, Kind.POINTER})
EMPTIES_BOX = frozenset({Kind.ENTER, Kind.BULK, Kind.INTERRUPT, Kind.KILL_LINE})


@attrs.frozen
class Piece:
    """Some bytes and what they are. For a sequence that was cut, `data` is only what had not gone on before."""

    kind: Kind
    data: bytes
    text: str = ""

    @property
    def typed(self) -> bool:
        """Did a person do this? A PART counts: it may turn out to be a key."""
        return self.kind not in _NOT_TYPED


# A lone ESC is the Escape key when nothing follows for so long; terminals send a sequence in one write.
ESCAPE_SEC = 0.05

# No answer of a terminal is longer; without a limit a stray Alt+] would hide what is typed after it.
STRING_MAX = 4096

SLICE = 1024

# So much at once, and nothing but text and line ends, is pasted or piped: its tokens, 100 000 a megabyte, tell nothing.
BULK_MIN = 1024
_NOT_BULK = bytes({*range(0x20), 0x7F} - set(b"\t\n\r"))
_BULK = re.compile(rb"[^%b]+\r" % re.escape(_NOT_BULK))

_TEXT = re.compile(rb"[ -~]*")
_CSI = re.compile(rb"\x1b\[([0-?]*)([ -/]*)([@-~])")
_CSI_OPEN = re.compile(rb"\x1b\[[0-?]*[ -/]*")
_SS3 = re.compile(rb"\x1bO[ -~]")
# OSC begins with a number, DCS with one of these, APC of the graphics protocol with G; anything else is Alt and a key.
_STRING_OPEN = re.compile(rb"\x1b(?:\](?:[0-9]|$)|P(?:[0-9>!$+|]|$)|_(?:G|$))")
_STRING_END = re.compile(rb"\x1b\\|[\x00-\x1f]")
_PASTE_OPEN, _PASTE_CLOSE = b"\x1b[200~", b"\x1b[201~"

_CONTROLS = {
    0x0D: Kind.ENTER,
    0x08: Kind.BACKSPACE,
    0x7F: Kind.BACKSPACE,
    0x15: Kind.KILL_LINE,
    0x17: Kind.KILL_WORD,
    0x03: Kind.INTERRUPT,
}
_CTRL_KEYS = {
    ord("c"): Kind.INTERRUPT,
    ord("u"): Kind.KILL_LINE,
    ord("w"): Kind.KILL_WORD,
    ord("h"): Kind.BACKSPACE,
}
_SHIFT, _ALT, _CTRL, _LOCKS = 1, 2, 4, 64 + 128


_PLAIN = re.compile(rb"[ -~]{1,16}")


def _bulk_size(data: bytes) -> int:
    """How much of it, up to the end of a line, is nothing but text."""
    end = data.rfind(b"\r") + 1
    if len(data[:end].translate(None, _NOT_BULK)) == end:
        return end  # nearly always; the expression takes four times as long, a seventh of what a paste costs us
    found = _BULK.match(data)
    return found.end() if found else 0


@attrs.define
class Keystrokes:
    """The classifier of one client. Feed it everything that this client sent, in order."""

    in_paste: bool = False
    _open: bytes = b""  # the cut sequence; it has already gone on as PART
    _paste: bytearray = attrs.field(factory=bytearray)
    _fed_at: float = 0.0

    @property
    def unfinished(self) -> bool:
        """In the middle of a paste or a sequence: nothing may be put in between."""
        return self.in_paste or bool(self._open)

    def plain(self, data: bytes) -> bool:
        """Is it a key of the simplest kind, which can only go on with a draft?"""
        return _PLAIN.fullmatch(data) is not None and not self.unfinished

    def feed(self, data: bytes, now: float) -> list[Piece]:
        """Pieces whose `data` together are exactly `data`."""
        cut = not self.in_paste and self._open >= b"\x80"  # a character, whose rest is text like what follows
        bulk = 0 if len(data) < BULK_MIN or (self.unfinished and not cut) else _bulk_size(data)
        if bulk >= BULK_MIN:
            self._open = b""
            return [Piece(Kind.BULK, data[:bulk]), *self._slices(data[bulk:], now)]
        return self._slices(data, now)

    def _slices(self, data: bytes, now: float) -> list[Piece]:
        """What is left is copied for each token, so long input is taken in slices."""
        slices = range(0, len(data), SLICE) if data else (0,)
        return [piece for at in slices for piece in self._feed(data[at : at + SLICE], now)]

    def _feed(self, data: bytes, now: float) -> list[Piece]:
        pieces: list[Piece] = []
        if self._open == b"\x1b" and now - self._fed_at >= ESCAPE_SEC:
            self._open = b""
            pieces.append(Piece(Kind.ESCAPE, b""))
        self._fed_at = now
        gone = len(self._open)
        rest = self._open + data
        self._open = b""
        while rest:
            kind, size, text = self._paste_token(rest) if self.in_paste else _token(rest)
            if kind is Kind.PART:
                self._open = rest
            token, rest = rest[:size], rest[size:]
            pieces.append(Piece(kind, token[gone:], text))
            gone = max(0, gone - size)
            if kind is Kind.PASTE and token == _PASTE_OPEN:
                self.in_paste = True
        return [piece for piece in pieces if piece.data or piece.kind is not Kind.PART]

    def _paste_token(self, rest: bytes) -> tuple[Kind, int, str]:
        """Inside a paste: everything up to its end, which is the piece that carries the text."""
        end = rest.find(_PASTE_CLOSE)
        if end >= 0:
            text = (bytes(self._paste) + rest[:end]).decode("utf-8", "replace")
            self._paste.clear()
            self.in_paste = False
            return Kind.PASTE, end + len(_PASTE_CLOSE), text
        keep = next((n for n in range(min(5, len(rest)), 0, -1) if rest.endswith(_PASTE_CLOSE[:n])), 0)
        if keep == len(rest):
            return Kind.PART, keep, ""
        self._paste += rest[: len(rest) - keep]
        return Kind.PASTE, len(rest) - keep, ""


def _token(rest: bytes) -> tuple[Kind, int, str]:
    """Kind, size and text of the first token of `rest`."""
    first = rest[0]
    if first == 0x1B:
        return _escape(rest)
    if first < 0x20 or first == 0x7F:
        return _CONTROLS.get(first, Kind.EDIT), 1, ""
    if first < 0x80:
        text = _TEXT.match(rest)[0]  # type: ignore[index]  # its first byte is one of these
        return Kind.TEXT, len(text), text.decode("ascii")
    size = 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 1
    good = next((i for i in range(1, min(size, len(rest))) if rest[i] & 0xC0 != 0x80), min(size, len(rest)))
    if good < size and good == len(rest):
        return Kind.PART, good, ""
    return Kind.TEXT, good, rest[:good].decode("utf-8", "replace")


def _escape(rest: bytes) -> tuple[Kind, int, str]:
    if len(rest) == 1:
        return Kind.PART, 1, ""
    if rest[1] == 0x1B:
        return Kind.ESCAPE, 1, ""
    if rest[1] == 0x5B:
        return _control_sequence(rest)
    if rest[1] == 0x4F:
        return (Kind.EDIT, 3, "") if _SS3.match(rest) else (Kind.PART, 2, "") if len(rest) == 2 else (Kind.EDIT, 2, "")
    if _STRING_OPEN.match(rest):
        return _string(rest)
    if rest[1] >= 0x80:
        kind, size, _ = _token(rest[1:])
        return (Kind.PART if kind is Kind.PART else Kind.EDIT), size + 1, ""
    return Kind.EDIT, 2, ""  # Alt and a key


def _string(rest: bytes) -> tuple[Kind, int, str]:
    """OSC, DCS or APC. Any other control than its end shows that it was Alt and a key, then more keys."""
    end = _STRING_END.search(rest, 2, STRING_MAX)
    if end is None or (end[0] == b"\x1b" and end.end() == len(rest)):
        return (Kind.PART, len(rest), "") if len(rest) < STRING_MAX else (Kind.EDIT, 2, "")
    if end[0] in (b"\x1b\\", b"\x07"):
        return Kind.REPORT, end.end(), ""
    return Kind.EDIT, 2, ""


def _control_sequence(rest: bytes) -> tuple[Kind, int, str]:
    found = _CSI.match(rest)
    if found is None:
        opened = _CSI_OPEN.match(rest)
        size = opened.end() if opened else 2
        return (Kind.PART if size == len(rest) else Kind.EDIT), size, ""
    params, between, final = found[1], found[2], found[3].decode()
    size = found.end()
    if found[0] == _PASTE_OPEN:
        return Kind.PASTE, size, ""
    if final == "M" and not params and not between:  # X10 mouse: three bytes follow
        return (Kind.POINTER, size + 3, "") if len(rest) >= size + 3 else (Kind.PART, len(rest), "")
    if params[:1] == b"<" or (final in "IO" and not params) or (final == "M" and params.count(b";") == 2):
        return Kind.POINTER, size, ""
    if _is_report(params, between, final):
        return Kind.REPORT, size, ""
    kind, text = _key(params, final)
    return kind, size, text


def _is_report(params: bytes, between: bytes, final: str) -> bool:
    """Answers: attributes, status, position, modes, keyboard flags, window sizes.

    `CSI 1;5R` is also Ctrl+F3 of some terminals; taken for a position it does no harm: it makes no draft.
    """
    if params[:1] in (b"?", b">", b"=") or between == b"$":
        return True
    return final in "cnxt" or (final == "R" and b";" in params)


def _key(params: bytes, final: str) -> tuple[Kind, str]:
    """A key of the kitty protocol (`CSI code;modifiers:event;text u`), of xterm (`CSI 27;m;code~`), or a cursor key."""
    fields = params.split(b";")
    modifiers = _numbers(fields[1]) if len(fields) > 1 else []
    if len(modifiers) > 1 and modifiers[1] == 3:
        return Kind.POINTER, ""  # released
    held = max(0, (modifiers[0] if modifiers else 1) - 1) & ~_LOCKS
    if final == "u":
        code, typed = _numbers(fields[0])[:1], _numbers(fields[2]) if len(fields) > 2 else []
        shifted = _numbers(fields[0])[1:2] if held & _SHIFT else []
    elif final == "~" and fields[0] == b"27" and len(fields) == 3:
        code, typed, shifted = _numbers(fields[2]), [], []
    else:
        return Kind.EDIT, ""
    return _key_code(code[0] if code else 0, held, typed or [n for n in shifted if n])


def _key_code(code: int, held: int, typed: list[int]) -> tuple[Kind, str]:
    if held & _CTRL and not held & _ALT:
        return _CTRL_KEYS.get(code, Kind.EDIT), ""
    if held & ~_SHIFT:
        return Kind.EDIT, ""
    match code:
        case 13 if not held:
            return Kind.ENTER, ""
        case 27:
            return Kind.ESCAPE, ""
        case 127 | 8:
            return Kind.BACKSPACE, ""
    if 57344 <= code <= 63743:  # modifier and function keys live in the private use area
        return (Kind.POINTER if 57441 <= code <= 57454 else Kind.EDIT), ""
    text = "".join(chr(n) for n in typed or [code] if 32 <= n < 0x110000)
    return (Kind.TEXT, text) if text else (Kind.EDIT, "")


def _numbers(field: bytes) -> list[int]:
    return [int(part) if part.isdigit() and len(part) < 8 else 0 for part in field.split(b":")]


@attrs.frozen
class Line:
    """What a person submitted. Not `certain`: edited in ways that only the screen knows."""

    text: str
    certain: bool


@attrs.define
class Draft:
    """The line that a person is typing, as far as the keys tell it.

    `present` begins with any key (an arrow can bring a line of the history back) and ends with Enter, ^C or ^U, or when
    the owner has seen on the screen that the line is empty.
    """

    text: str = ""
    certain: bool = True
    present: bool = False

    def take(self, piece: Piece) -> Line | None:
        """Follow one piece; the line when it was Enter."""
        match piece.kind:
            case Kind.ENTER:
                line = Line(self.text, self.certain)
                self.clear()
                return line
            case Kind.INTERRUPT | Kind.KILL_LINE | Kind.BULK:
                self.clear()  # nobody's words to the room: that many lines are data
            case Kind.TEXT | Kind.PASTE:
                self.present = True
                self.text += piece.text
            case Kind.BACKSPACE:
                self.present = True
                self.text = self.text[:-1]
            case Kind.KILL_WORD:
                self.present = True
                self.text = re.sub(r"\S+\s*$", "", self.text)
            case Kind.EDIT | Kind.ESCAPE:
                self.present = True
                self.certain = False
            case Kind.REPORT | Kind.POINTER | Kind.PART:
                pass
        return None

    def clear(self) -> None:
        self.text, self.certain, self.present = "", True, False
