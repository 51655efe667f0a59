"""The person's side of one terminal: when a key came last, whether a draft stands, which keys wait for a message.

Keeps every byte in order and finds submitted lines. When keys wait and when they go on is the arbiter's to decide.
"""

from collections.abc import Iterable

import attrs

from cspd.profiles.profile import Profile
from cspd.sidecar.activity import Activity
from cspd.sidecar.box import Anchor, box_rows
from cspd.sidecar.keystrokes import Draft, Kind, Line, Piece
from cspd.sidecar.orders import Command, HumanLine, Write
from cspd.sidecar.view import View

# More cannot be typed in the time that keys may wait; a larger paste ends the wait instead.
WAITING_MAX = 256 * 1024


@attrs.define
class Person:
    profile: Profile
    draft: Draft = attrs.field(factory=Draft)
    waiting: list[Piece] = attrs.field(factory=list)
    last_key: float = float("-inf")
    in_paste: bool = False
    _secret: bool = False  # part of the draft was typed where echo was off

    def noticed(self, pieces: Iterable[Piece], now: float, in_paste: bool) -> None:
        self.in_paste = in_paste
        if any(piece.typed for piece in pieces):
            self.last_key = now

    def quiet_at(self) -> float:
        """From when on the last key is long enough ago."""
        return self.last_key + self.profile.typing.human_quiet_sec

    def in_the_way(self, now: float) -> bool:
        """Would typing now get into what the person is doing?"""
        return self.draft.present or self.in_paste or now < self.quiet_at()

    @property
    def too_much(self) -> bool:
        return sum(len(piece.data) for piece in self.waiting) > WAITING_MAX

    def release(self) -> list[Piece]:
        """The keys that waited; they are the caller's now."""
        pieces, self.waiting = self.waiting, []
        return pieces

    def go_on(
        self, pieces: Iterable[Piece], view: View | None, activity: Activity, anchor: Anchor | None
    ) -> list[Command]:
        """Send these pieces on, untouched, and tell the lines that they submit."""
        pieces = list(pieces)
        lines: list[Command] = []
        data = b"".join(piece.data for piece in pieces)
        for piece in pieces:
            if view is not None and view.canonical and piece.data == b"\n":
                piece = Piece(Kind.ENTER, piece.data)  # in a line-oriented program ^J is Enter
            if piece.typed and view is not None and view.password:
                self._secret = True
            line = self.draft.take(piece)
            if line is not None and self._may_share(view, activity):
                line = self._read(line, view, anchor)
                if line.text.strip():
                    lines.append(HumanLine(line.text, line.certain))
            if not self.draft.present:
                self._secret = False
        return [Write(data), *lines] if data else []

    def _may_share(self, view: View | None, activity: Activity) -> bool:
        """Never a password, an answer to a dialog, or what is typed into an editor or a job."""
        if view is None or view.password or self._secret or not view.foreground:
            return False
        return activity in (Activity.IDLE, Activity.BUSY)

    def _read(self, line: Line, view: View | None, anchor: Anchor | None) -> Line:
        """An edited line as the screen shows it: the keys alone do not tell what was recalled or completed."""
        if line.certain or view is None:
            return line
        shown = view.before_cursor + (" " + view.after_cursor if view.after_cursor else "")
        if anchor is not None and anchor.before and shown.startswith(anchor.before):
            return Line(shown[len(anchor.before) :].strip(), False)
        box = box_rows(self.profile, view)
        if box:
            first = self.profile.box.prompt.sub("", box[0])
            return Line("\n".join(row.strip() for row in (first, *box[1:])).strip(), False)
        return line if anchor is None or anchor.before else Line(shown.strip(), False)
