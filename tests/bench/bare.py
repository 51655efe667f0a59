"""A bare typist: the same careful steps at the same CLI without CSP, to see what a message costs the CLI itself."""

import os
import select
import time

import attrs
from real.outer import Outer

from cspd.profiles.profile import Profile
from cspd.sidecar.box import Trace, input_box
from cspd.sidecar.view import View

READY_QUIET_SEC = 0.8  # the prompt is drawn and nothing moves


@attrs.frozen
class Cost:
    """Seconds that the CLI took to show a paste, and to take it out of its box after Enter."""

    shown: float
    gone: float


class Typist(Outer):
    """A terminal at which nobody but this typist sits; it answers the CLI's queries as a real one does."""

    def _read(self) -> bool:
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False  # EIO: the CLI has ended
        self.output += data
        replies = self.terminal.feed(data)
        if replies:
            os.write(self.fd, replies)
        return bool(data)

    def view(self) -> View:
        term = self.terminal
        return View(
            rows=tuple(term.screen_lines()),
            cursor=term.cursor,
            title=term.title,
            alternate=term.alternate,
            bracketed_paste=term.mode(2004),
            canonical=False,
            wrapped=tuple(term.wrapped()),
        )

    def wait_quiet(self) -> None:
        while select.select([self.fd], [], [], READY_QUIET_SEC)[0]:
            self._read()

    def wait_ready(self, profile: Profile) -> None:
        self.until(lambda: input_box(profile, self.view()), "the input box")
        self.wait_quiet()

    def paste(self, profile: Profile, text: str) -> Cost:
        """One message; returns when the CLI is quiet again."""
        trace = Trace.of(profile, self.view(), text)
        began = time.monotonic()
        self.type(f"\x1b[200~{text}\x1b[201~")
        self.until(lambda: trace.seen(self.view()), "the paste is shown")
        shown = time.monotonic() - began
        place = trace.seen(self.view())
        assert place is not None
        time.sleep(profile.typing.settle_sec)  # the sidecar waits as long: a paste is taken with a delay
        began = time.monotonic()
        self.type("\r")
        self.until(lambda: trace.stands(self.view(), place) is False, "the paste has left the box")
        gone = time.monotonic() - began
        self.wait_quiet()
        return Cost(shown, gone)
