"""Lines that a person has submitted and that wait to be seen on the screen before the room may hear them.

What never shows is a secret: a line that was typed ahead is judged by the terminal of that moment, and may yet be read
with echo off. Whether lines are shared at all is the unit's setting.
"""

from collections import deque

import attrs

from cspd.sidecar.view import View

LINES_MAX = 20  # nobody types more in SEEN_SEC; of a paste of lines the last ones are kept
SEEN_SEC = 1.0  # a submitted line that has not shown on the screen after this is kept to ourselves


@attrs.define
class Submitted:
    """The lines of one person's terminal, oldest first."""

    _waiting: deque[tuple[str, float]] = attrs.field(factory=lambda: deque(maxlen=LINES_MAX))

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, text: str, now: float) -> None:
        self._waiting.append((text, now + SEEN_SEC))

    def take_seen(self, view: View | None, now: float) -> list[str]:
        """Those that the screen shows; those that have waited too long are forgotten."""
        shown = _squeezed("".join(view.lines())) if view is not None else ""
        waiting = list(self._waiting)
        self._waiting.clear()
        seen = []
        for text, until in waiting:
            if _squeezed(text) in shown:
                seen.append(text)
            elif now < until:
                self._waiting.append((text, until))
        return seen


def _squeezed(text: str) -> str:
    """Without blanks: the screen wraps and indents."""
    return "".join(text.split())
