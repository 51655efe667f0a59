"""The one error type that people and programs see: a stable code, one sentence, a hint, an exit status.

The same object becomes a JSON-RPC error (`wire.rpc`) and a line on stderr (`cspctl`). Standard library only.
"""

from __future__ import annotations

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

FAILED = 1
USAGE = 2
NOT_ACTIVE = 3
NO_SUCH = 4
UNREACHABLE = 5
TIMED_OUT = 6

# code -> exit status of cspctl; what is not listed exits with FAILED
EXIT_STATUS: Mapping[str, int] = {
    "usage": USAGE,
    "bad-name": USAGE,
    "not-active": NOT_ACTIVE,
    "no-such-agent": NO_SUCH,
    "no-such-room": NO_SUCH,
    "no-such-message": NO_SUCH,
    "no-such-recording": NO_SUCH,
    "unreachable": UNREACHABLE,
    "timed-out": TIMED_OUT,
}


class CspError(Exception):
    """A refusal or failure that its reader can act on.

    `code` is stable and lower-case-with-dashes; `sentence` has the form `what: which: why` and shows the value;
    `hint` is an action; `data` is extra material for programs (for example `{"problems": [...]}`).
    """

    def __init__(self, code: str, sentence: str, hint: str = "", data: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.hint = hint
        self.data = dict(data or {})

    @property
    def exit_status(self) -> int:
        return EXIT_STATUS.get(self.code, FAILED)

    def __str__(self) -> str:
        return f"{self.sentence} ({self.hint})" if self.hint else self.sentence


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest known word, or "" when none is close."""
    try:
        import difflib  # only for mistakes: a start of cspctl is short
    except OSError:
        return ""  # no descriptor is free to read it with

    close = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {close[0]!r}?" if close else ""
