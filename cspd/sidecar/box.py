"""Reads from a view whether typed text stands on the screen, where, and whether it has left its place again.

Compares letters and digits only: terminals wrap, indent and draw frames. What follows from it is for `delivery` and
`arbiter` to decide.
"""

import enum
import re
import unicodedata

import attrs

from cspd.profiles.profile import Box, Profile
from cspd.sidecar.view import View

TAIL_CHARS = 40  # of the last line; more would be cut by narrow boxes
ROWS_ABOVE = 8  # a box wraps the tail over no more rows
FRAME_CHARS = 40  # letters that a program puts behind a prompt: claude ends a long one with `</pasted_content id=...>`


class Place(enum.Enum):
    """Where the typed text was recognised, the surest first."""

    CURSOR = "before the cursor"
    BOX = "in the input box"
    PLACEHOLDER = "as a placeholder"
    SCREEN = "on the screen"


class Letters(enum.Enum):
    """What of a text is compared, the first for which there is enough."""

    ASCII = "letters and digits of ASCII"
    ANY = "letters and digits"
    ALL = "all but blanks"


ENOUGH = {Letters.ASCII: 8, Letters.ANY: 1, Letters.ALL: 0}


@attrs.frozen
class Anchor:
    """The input's place as it looked with nothing typed."""

    before: str
    after: str
    box: tuple[str, ...] | None

    @classmethod
    def of(cls, profile: Profile, view: View) -> "Anchor":
        return cls(view.before_cursor.rstrip(), view.after_cursor, box_rows(profile, view))


def box_span(profile: Profile, view: View) -> tuple[int, int] | None:
    """First row of the input box and the one behind its last: from the lowest prompt to the frame or blank row."""
    box = profile.box
    for first in range(view.last_row, -1, -1):
        if not box.prompt.search(view.rows[first]):
            continue
        if box.top is not None and not (first and box.top.search(view.rows[first - 1])):
            continue
        return first, next((row for row in range(first + 1, len(view.rows)) if _ends(box, view, row)), len(view.rows))
    return None


def _ends(box: Box, view: View, row: int) -> bool:
    """Is this row behind the box? Text may hold blank rows; the cursor shows that it goes on behind them."""
    text = view.rows[row]
    return bool(box.end.search(text)) and not (box.cursor and not text.strip() and row <= view.cursor[0])


def box_rows(profile: Profile, view: View) -> tuple[str, ...] | None:
    """What stands in the input box; None when there is none on the screen."""
    span = box_span(profile, view)
    return None if span is None else view.rows[slice(*span)]


def input_box(profile: Profile, view: View) -> tuple[int, int] | None:
    """The same, but only where the program takes input now: not an older prompt that is left over on the screen."""
    span = box_span(profile, view)
    if span is None or (profile.box.cursor and not span[0] <= view.cursor[0] < span[1]):
        return None
    return span


def is_empty(profile: Profile, view: View, anchor: Anchor | None) -> bool:
    """Is it seen that no draft stands in the input? False also when it cannot be known."""
    if anchor is not None and Anchor.of(profile, view) == anchor:
        return True
    box = box_rows(profile, view)
    if box and not any(map(str.strip, box[1:])) and any(pattern.search(box[0]) for pattern in profile.box.empty):
        return True
    if anchor is not None or view.after_cursor:
        return False
    line = view.before_cursor
    if view.canonical and not line.strip():
        return True  # a line editor would show a draft; in a multi-line box an empty line says nothing
    return bool(profile.box.prompt_end.search(line))


def is_occupied(profile: Profile, view: View) -> bool:
    """Is text seen in the input, whoever put it there? What stands only behind the cursor is a suggestion."""
    span = input_box(profile, view) if profile.box.cursor else None
    if span is None:
        return False
    first, row = span[0], view.cursor[0]
    if row > first:
        return True
    return bool(profile.box.prompt.sub("", view.before_cursor).strip())


# An empty line that Python and its kin ask for behind a pasted block; Enter on it submits the block.
_CONTINUATION = re.compile(r"\.\.\.\s*$")


@attrs.frozen
class Trace:
    """Typed text and the screen before it: recognises the text when it shows."""

    profile: Profile
    anchor: Anchor
    tail: str
    block: bool  # it goes as one paste, so that a REPL may take its Enter for one more line of a block
    _letters: Letters
    _on_screen: int  # how often the tail stood on the screen before
    _placeholders: int

    @classmethod
    def of(cls, profile: Profile, view: View, text: str) -> "Trace":
        last = next((line for line in reversed(text.split("\n")) if line.strip()), "")
        # Emulators agree about ASCII; other letters, then other signs, are taken only when there is little else.
        letters = next((kind for kind in Letters if len(squeeze(last, kind)) >= ENOUGH[kind]), Letters.ALL)
        tail = squeeze(last, letters)[-TAIL_CHARS:]
        blind = cls(profile, Anchor.of(profile, view), tail, view.bracketed_paste, letters, 0, 0)
        return attrs.evolve(blind, on_screen=blind._count(view), placeholders=blind._count_placeholders(view))

    def seen(self, view: View) -> Place | None:
        """Where the text shows now and did not before."""
        if self.profile.box.cursor and self._in_box(view):
            return Place.BOX  # surer than the cursor's line, which an Enter that was not taken leaves blank
        if self._at_cursor(view, whole=True):
            return Place.CURSOR
        if self._in_box(view):
            return Place.BOX
        if self._count_placeholders(view) > self._placeholders:
            return Place.PLACEHOLDER
        return Place.SCREEN if self._count(view) > self._on_screen else None

    def stands(self, view: View, place: Place) -> bool | None:
        """Is the text still where it was typed? None: cannot be told."""
        match place:
            case Place.CURSOR:
                return self._at_cursor(view, whole=False)
            case Place.BOX:
                box = self._box(view)
                return None if box is None else self.tail in box
            case Place.PLACEHOLDER:
                rows = box_rows(self.profile, view)
                if rows is None:
                    return None
                return any(p.search(row) for row in rows for p in self.profile.typing.placeholders)
            case Place.SCREEN:
                return None if self._count(view) > self._on_screen else False

    def alone(self, view: View, place: Place) -> bool:
        """Does the text stand there with nothing behind it, so that Enter submits it and not more?"""
        match place:
            case Place.CURSOR:
                return self._at_cursor(view, whole=True)
            case Place.BOX:
                return (self._box(view) or "").endswith(self.tail)
            case _:
                return bool(self.stands(view, place))

    def is_end_of(self, text: str) -> bool:
        """Does this prompt, as a hook reports it, end with the typed text? A program may put a frame around it."""
        return bool(self.tail) and self.tail in squeeze(text, self._letters)[-len(self.tail) - FRAME_CHARS :]

    def shown_elsewhere(self, view: View) -> bool:
        """Does the text stand outside the input, as programs show a prompt that they have taken?"""
        box = self._box(view) or ""
        return self.tail not in box and self._count(view) > self._on_screen

    def evidence(self, view: View) -> str:
        """The screen line that shows the end of the text, or the cursor's."""
        end = self.tail[-10:]
        return next(
            (row.strip() for row in reversed(view.rows) if end in squeeze(row, self._letters)),
            view.cursor_row,
        )

    def _at_cursor(self, view: View, *, whole: bool) -> bool:
        """The line before the cursor ends with the tail (`whole`) or holds it.

        A line that looks as it did before typing is an empty prompt, whatever the lines above it say.
        """
        line = view.before_cursor
        shown = squeeze(line, self._letters)
        if self.block and _CONTINUATION.match(line) and not _CONTINUATION.match(self.anchor.before):
            row = view.line_start(view.cursor[0])
            return self._squeezed(view.rows[max(0, row - ROWS_ABOVE) : row]).endswith(self.tail)
        if not shown or line.rstrip() == self.anchor.before:
            return False
        if shown.endswith(self.tail) or (not whole and self.tail in shown):
            return True
        # A program that wraps by itself: the cursor's row holds the last part of the tail only.
        start = view.line_start(view.cursor[0])
        above = self._squeezed(view.rows[max(0, start - ROWS_ABOVE) : start])
        return self.tail.endswith(shown) and (above + shown).endswith(self.tail)

    def _in_box(self, view: View) -> bool:
        box = self._box(view)
        return box is not None and self.tail in box and self.tail not in self._squeezed(self.anchor.box or ())

    def _box(self, view: View) -> str | None:
        rows = box_rows(self.profile, view)
        return None if rows is None else self._squeezed(rows)

    def _squeezed(self, rows: tuple[str, ...]) -> str:
        return squeeze("".join(rows), self._letters)

    def _count(self, view: View) -> int:
        return self._squeezed(view.rows).count(self.tail) if self.tail else 0

    def _count_placeholders(self, view: View) -> int:
        patterns = self.profile.typing.placeholders
        return sum(len(pattern.findall(line)) for line in view.lines() for pattern in patterns)


def squeeze(text: str, letters: Letters) -> str:
    """What is compared of a text: never blanks, which terminals add and drop."""
    if letters is Letters.ALL:
        return "".join(text.split())
    plain = unicodedata.normalize("NFKD", text)
    return "".join(char for char in plain if char.isalnum() and (letters is Letters.ANY or char.isascii()))
