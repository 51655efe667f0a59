"""Text of ours that may still stand in the input after a failed attempt: nothing may be typed behind it.

Pure. It is over when the text was seen and is gone. What was never seen may only be late: then a known box must be seen
empty for long, with nothing of ours unread. In an input that no profile knows, only a person can tell.
"""

import attrs

from cspd.profiles.profile import Profile
from cspd.sidecar.activity import Activity, Decision
from cspd.sidecar.box import Trace, input_box, is_empty
from cspd.sidecar.view import View

EMPTY_SEC = 10.0  # the longest that a CLI on a loaded machine was seen to take for showing a paste is half of it


@attrs.define
class Residue:
    profile: Profile
    trace: Trace
    seen: bool
    empty_since: float | None = None

    def gone(self, view: View, decision: Decision, now: float) -> bool:
        """Judge one look, to be taken while nothing is typed and the person is quiet."""
        shown = self.trace.seen(view) is not None
        self.seen = self.seen or shown
        empty = not shown and is_empty(self.profile, view, self.trace.anchor)
        if self.seen:
            return empty
        known = self.profile.box.cursor and input_box(self.profile, view) is not None
        if not (empty and known and decision.activity is Activity.IDLE and view.unread == 0):
            self.empty_since = None
            return False
        self.empty_since = now if self.empty_since is None else self.empty_since
        return now >= self.empty_since + EMPTY_SEC

    def deadlines(self) -> list[float]:
        return [] if self.empty_since is None else [self.empty_since + EMPTY_SEC]
