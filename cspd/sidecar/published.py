"""What cspd is told of an agent's activity: each change, and not each flicker of a program that redraws itself. Pure.

Every look decides anew, and what is typed goes by that. What is published becomes an event that is kept.
"""

import attrs

from cspd.sidecar.activity import QUIET_SEC, Activity, Decision


@attrs.define
class Published:
    """`activity` is what cspd knows."""

    activity: Activity = Activity.STARTING
    _output_since: float | None = None  # of output of which no rule knows what it is

    def changes(self, decision: Decision, now: float) -> bool:
        """Is this decision to be told? Then it is what cspd knows from now on."""
        if self._is_flicker(decision, now) or self.activity in (decision.activity, decision.pending):
            return False
        self.activity = decision.activity
        return True

    def _is_flicker(self, decision: Decision, now: float) -> bool:
        """`top` draws every few seconds, and is at work no more than before; of a dialog that is drawn again a part may
        be seen. It is work when it goes on."""
        unruled = decision.activity is Activity.BUSY and not decision.rule
        if not unruled or self.activity not in (Activity.UNKNOWN, Activity.DIALOG):
            self._output_since = None
            return False
        if self._output_since is None:
            self._output_since = now
        return now - self._output_since < QUIET_SEC
