"""Turns a terminal's state into the bytes that draw it on another terminal: what a client sees when it
attaches.

Decides the order in which text, cursor and modes are written, so that none disturbs another. Reading the
state is terminal.py's part. Not carried over: colours set by OSC 4/10/11/12, pointer shape, G2/G3, semantic
prompt marks.
"""

import re
from itertools import groupby

import attrs

from cspd.sidecar.cells import BLANK, Cell, Row
from cspd.sidecar.terminal import Terminal
from cspd.wire.ansi import RESET

_NO_PEN = "\x1b[0m"
# What a paint begins from; `1049h` copies the cursor of the primary screen with all of this.
_NEUTRAL = b'\x1b[?6l\x1b[?69l\x1b[r\x1b[m\x1b]8;;\x1b\\\x1b[0"q\x1b(B\x1b)B\x0f'
# J from home, not 2J: some terminals push the cleared screen into their history.
_CLEAR = b"\x1b[H\x1b[J"
# Modes in an order that ends in the right effect: of several mouse modes or formats the last one set counts.
# Not here: 2026 would freeze the client, 3 and 40 clear the screen, and those of screen, region, keypad and
# cursor are written in their own places. The second number is what a freshly reset terminal has.
_OFF_BY_DEFAULT = (
    1,
    5,
    9,
    12,
    45,
    1000,
    1002,
    1003,
    1004,
    1005,
    1015,
    1006,
    1016,
    1039,
    1045,
    2004,
    2031,
    2048,
    5522,
)
_ON_BY_DEFAULT = (7, 1007, 1035, 1036)
_ANSI_MODES = {2: False, 4: False, 12: True, 20: False}
NOTE_MAX = 200  # characters
_KITTY_STACK = 8  # entries the emulator keeps; more pops than that find nothing


def reset() -> bytes:
    """Bytes that put any terminal back to sane modes after detach, without clearing the person's text."""
    return RESET


def notification(text: str) -> bytes:
    """Bytes that let a terminal show a note on the desktop, if it can; others ignore them."""
    # a progress report to some terminals, were it to begin with "4;"
    shown = "".join(c if c.isprintable() else " " for c in text)[:NOTE_MAX]
    return f"\x1b]9;CSP: {shown}\x1b\\".encode("utf-8", "replace")


def repaint(term: Terminal, *, scrollback: bool = True) -> bytes:
    """Bytes that make a freshly reset terminal of the same size equal to `term`, from home on a cleared
    screen.

    `term` itself is not touched. Raises only when an unfinished sequence is longer than the emulator keeps (4
    MB).
    """
    scratch = term.clone(None if scrollback and term.alternate else 0)
    try:
        scratch.feed(b"\x18")  # an unfinished sequence would swallow what is fed to it below
        out = [_NEUTRAL, b"\x1b[?2027h" if term.mode(2027) else b"", _CLEAR]
        saved, kitty = _saved_cursor(scratch), _kitty_stack(scratch)
        if term.alternate:
            out += [_primary_below(scratch, scrollback), _NEUTRAL, _CLEAR, _screen(term, joined=False)]
        else:
            out.append(_text(term, scrollback))
        out += [_tab_stops(term), saved, _cursor(term), _modes(term), kitty, term.extra("keyboard")]
        return b"".join(out) + _strings(term) + term.pending()
    finally:
        scratch.close()


def _primary_below(scratch: Terminal, scrollback: bool) -> bytes:
    """What the alternate screen hides, up to and including the switch; `scratch` is left on its primary
    screen."""
    switch = next((number for number in (1049, 1047) if scratch.mode(number)), 47)
    scratch.feed(b"\x1b[?%dl" % switch)
    out = [_text(scratch, scrollback)]
    cursor = _cursor(scratch)
    if switch != 1049:  # that one saves the present cursor, and has just restored it
        out.append(_saved_cursor(scratch))
    return b"".join([*out, cursor, _kitty_stack(scratch), b"\x1b[?%dh" % switch])


def _text(primary: Terminal, scrollback: bool) -> bytes:
    if not scrollback:
        return _screen(primary, joined=False)
    return primary.history_vt() + _screen(primary, joined=primary.history_wraps)


def _screen(term: Terminal, joined: bool) -> bytes:
    """The visible rows. `joined`: what was written before them goes on in the first one."""
    rows = term.read_rows()
    painter, above = _Painter(), BLANK if joined else None
    for y, row in enumerate(rows):
        below = rows[y + 1] if y + 1 < len(rows) else None
        painter.row(row, below, above)
        above = row.cells[-1] if row.wrapped else None
    return painter.finish()


class _Painter:
    """Writes cells from left to right and top to bottom; knows the pen, link and protection that are in
    force."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._pen, self._link, self._protected = _NO_PEN, "", False

    def row(self, row: Row, below: Row | None, above: Cell | None) -> None:
        """One row and its end of line. `above`: the last cell of the row above if that goes on here. Something then
        has to be printed in the first cell; likewise in the last one of a wrapped row. Only that makes a soft wrap."""
        wraps = below is not None and row.wrapped
        # The gap that a wide character leaves when it goes to the next row comes by itself, with that
        # character.
        gap = wraps and below is not None and row.cells[-1].gap and below.cells[0].wide
        cells = [cell for cell in row.cells if not cell.tail and not (cell.gap and gap)]
        runs = [(cell, len(list(same))) for cell, same in groupby(cells)]
        if runs and runs[-1][0] == BLANK and not wraps:
            runs.pop()
        if above is not None:
            self._step(row.cells, above)
        for index, (cell, count) in enumerate(runs):
            end = index == len(runs) - 1
            if cell.text or cell.pen or (end and wraps and not gap):
                self.text(cell, count)
            else:
                self._erased(cell, count, stay=end and not wraps)
        if below is not None and not wraps:
            self._attributes(_NO_PEN, "", False)  # a new line at the bottom is cleared in the pen's colour
            self._out.append("\r\n")

    def _step(self, cells: list[Cell], above: Cell) -> None:
        """Goes from a wrapped row to the beginning of the next, unless its first character does so by itself."""
        first = attrs.evolve(cells[0], pen=above.pen) if above.gap else cells[0]  # the gap takes the pen of the step
        if first == cells[0] and first.text and not first.pen:
            return
        # A new row at the bottom comes cleared in the pen's colour, so it is cleared once more.
        self.text(first)
        self._attributes(_NO_PEN, "", False)
        self._out.append("\r" if first.wide and len(cells) == 2 else "\x1b[K\r")

    def text(self, cell: Cell, count: int = 1) -> None:
        link = "" if cell.gap else cell.link  # of a wide character that was erased since
        self._attributes(cell.background or cell.pen or _NO_PEN, link, cell.protected)
        # The emulator keeps a wide blank for a wide character printed in line drawing; no byte prints such a
        # cell.
        self._out.append(("  " if cell.wide and cell.text == " " else cell.text or " ") * count)

    def finish(self) -> bytes:
        self._attributes(_NO_PEN, "", False)
        return "".join(self._out).encode("utf-8", "replace")

    def _erased(self, cell: Cell, count: int, *, stay: bool) -> None:
        if cell != BLANK:
            self._attributes(cell.background or _NO_PEN, cell.link, cell.protected)
            self._out.append(f"\x1b[{count}X")
        if not stay:
            self._out.append(f"\x1b[{count}C")

    def _attributes(self, pen: str, link: str, protected: bool) -> None:
        if pen != self._pen:
            self._out.append(pen)
        if link != self._link:
            self._out.append(f"\x1b]8;;{link}\x1b\\")
        if protected != self._protected:
            self._out.append(f'\x1b[{protected:d}"q')
        self._pen, self._link, self._protected = pen, link, protected


def _cursor(term: Terminal) -> bytes:
    """Margins, position and everything that ESC 7 would save; written on a terminal in the neutral state."""
    out = [b"\x1b[?69h" if term.mode(69) else b"", region := term.extra("scrolling_region")]
    top = left = 0
    if term.mode(6):  # positions count from the margins
        out.append(b"\x1b[?6h")
        top, left = _first(rb"\x1b\[(\d+)(?:;\d+)?r", region), _first(rb"\x1b\[(\d+)(?:;\d+)?s", region)
    row, column = term.cursor
    if term.pending_wrap:  # printing the last cell again is what leaves a cursor in this state
        cells = term.read_rows()[row].cells
        column -= cells[column].tail
        painter = _Painter()
        painter.text(cells[column])
        again = painter.finish()
    else:
        again = b""
    out += [b"\x1b[%d;%dH" % (row - top + 1, column - left + 1), again]
    out += [term.extra(name) for name in ("style", "hyperlink", "protection", "charsets")]
    return b"".join(out)


def _first(pattern: bytes, region: bytes) -> int:
    found = re.search(pattern, region)
    return int(found[1]) - 1 if found else 0


def _saved_cursor(scratch: Terminal) -> bytes:
    """What ESC 8 would restore; `scratch` has it restored afterwards."""
    scratch.feed(b"\x1b8")
    return _cursor(scratch) + b"\x1b7" + _NEUTRAL


def _kitty_stack(scratch: Terminal) -> bytes:
    """The keyboard flags that programs pushed on the present screen; `scratch` has none of them
    afterwards."""
    flags = [scratch.kitty_flags]
    for _ in range(_KITTY_STACK):
        scratch.feed(b"\x1b[<u")
        flags.append(scratch.kitty_flags)
    while flags and not flags[-1]:
        flags.pop()
    return b"".join(b"\x1b[>%du" % flag for flag in reversed(flags))


def _tab_stops(term: Terminal) -> bytes:
    stops = term.extra("tabstops")
    usual = b"".join(b"\x1b[%dG\x1bH" % (column + 1) for column in range(8, term.columns - 1, 8))
    return b"" if stops == b"\x1b[3g" + usual + b"\x1b[H" else stops


def _modes(term: Terminal) -> bytes:
    out = [b"\x1b[?%dh" % number for number in _OFF_BY_DEFAULT if term.mode(number)]
    out += [b"\x1b[?%dl" % number for number in _ON_BY_DEFAULT if not term.mode(number)]
    for number, usual in _ANSI_MODES.items():
        if term.mode(number, ansi=True) != usual:
            out.append(b"\x1b[%d%c" % (number, b"l" if usual else b"h"))
    if term.mode(66):  # the keypad by its old name, which every terminal knows
        out.append(b"\x1b=")
    return b"".join(out)


def _strings(term: Terminal) -> bytes:
    """Title, working directory, cursor shape and visibility; what the program never set stays the person's
    own."""
    out = [f"\x1b]2;{term.title}\x1b\\".encode()] if term.title else []
    if term.pwd:
        out.append(f"\x1b]7;{term.pwd}\x1b\\".encode())
    if term.cursor_shape:
        out.append(b"\x1b[%d q" % term.cursor_shape)
    if not term.cursor_visible:
        out.append(b"\x1b[?25l")
    return b"".join(out)
