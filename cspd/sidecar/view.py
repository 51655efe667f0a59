"""What the terminal shows at one moment, as plain values: all that the pure sidecar modules know of a screen.

The shell reads a View from the emulator and the tty; activity, box and arbiter judge it. Nothing here decides anything.
"""

import unicodedata

import attrs


@attrs.frozen
class View:
    """Facts about one terminal at one moment."""

    rows: tuple[str, ...]  # visible rows, right-stripped
    cursor: tuple[int, int]  # (row, column) in cells from 0; behind the last cell while a wrap is pending
    title: str = ""
    alternate: bool = False
    bracketed_paste: bool = False
    canonical: bool = True  # termios ICANON of the slave
    echo: bool = True  # termios ECHO of the slave
    foreground: bool = True  # the agent's own process group is the terminal's; False: a shell runs a job
    reading: bool | None = None  # a process of the agent sleeps in a terminal read; None: not known
    unread: int = 0  # bytes that we wrote and the program has not read; looked at while a message is typed only
    wrapped: tuple[bool, ...] = ()  # row continues in the next by soft wrap

    @property
    def password(self) -> bool:
        """A line is read with echo off. Nothing may be typed here and nothing that is typed may be shared."""
        return self.canonical and not self.echo

    @property
    def blank(self) -> bool:
        """Nothing was ever shown (or all of it was cleared)."""
        return not self.title and not any(self.rows)

    @property
    def cursor_row(self) -> str:
        """The row that the cursor is on, without its wrapped neighbours."""
        row = self.cursor[0]
        return self.rows[row] if 0 <= row < len(self.rows) else ""

    @property
    def before_cursor(self) -> str:
        """The line up to the cursor, joined over soft wraps. A cursor beyond the text counts as blanks."""
        row, column = self.cursor
        head, tail = cut_at_cell(self.cursor_row, column)
        if not tail:
            head += " " * (column - cells(head))
        return "".join(self.rows[self.line_start(row) : row]) + head

    @property
    def after_cursor(self) -> str:
        """The rest of the line behind the cursor, joined over soft wraps, without outer blanks."""
        row, column = self.cursor
        text = cut_at_cell(self.cursor_row, column)[1]
        while self.continues(row):
            row += 1
            text += self.rows[row]
        return text.strip()

    def continues(self, row: int) -> bool:
        """Does this row go on in the next one by soft wrap?"""
        return row < len(self.wrapped) and self.wrapped[row] and row + 1 < len(self.rows)

    def line_start(self, row: int) -> int:
        """The first row of the line that this row belongs to."""
        while row > 0 and self.continues(row - 1):
            row -= 1
        return row

    @property
    def last_row(self) -> int:
        """Index of the lowest row that shows something; -1 when there is none."""
        return max((index for index, text in enumerate(self.rows) if text), default=-1)

    def lines(self, first: int = 0, end: int | None = None) -> list[str]:
        """Rows `first` to `end`, joined where one continues in the next by soft wrap."""
        stop = len(self.rows) if end is None else min(end, len(self.rows))
        found: list[str] = []
        for row in range(first, stop):
            if row > first and self.continues(row - 1):
                found[-1] += self.rows[row]
            else:
                found.append(self.rows[row])
        return found


def cells(text: str) -> int:
    """How many terminal cells this text takes."""
    return sum(map(_width, text))


def cut_at_cell(text: str, column: int) -> tuple[str, str]:
    """Both parts of a row around a cell; a wide character is never cut, marks stay with their letter."""
    taken = 0
    for index, char in enumerate(text):
        width = _width(char)
        if width and taken >= column:
            return text[:index], text[index:]
        taken += width
    return text, ""


def _width(char: str) -> int:
    if char < "\u0300":
        return 1
    if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
