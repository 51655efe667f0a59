"""A sidecar gives way to one of the installed version: it ends, and the keeper forks another one with its descriptors.

Not in the middle of something: what is being typed is typed to its end first, and nothing new is begun meanwhile. What
the successor knows it reads from the black box, as after a death.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs
import trio

from cspd.errors import CspError

WAIT_SEC = 30.0  # for the end of what is under way; a program that reads nothing may keep it for ever
POLL_SEC = 0.02  # only while we wait for that end


class Session(Protocol):
    """Whose sidecar it is."""

    name: str

    def hold_back(self, yes: bool) -> None: ...
    def in_hand(self) -> str: ...


async def _nothing() -> None:
    """The keeper has tried the installed version before any sidecar is asked."""


@attrs.define
class Renewal:
    """`due` is set when this sidecar shall end; nothing is under way at that moment.

    `check` raises CspError when there would be no successor.
    """

    session: Session
    due: trio.Event = attrs.Factory(trio.Event)
    check: Callable[[], Awaitable[None]] = _nothing

    async def ask(self) -> None:
        """Raises CspError("busy") with what has to be ended first; then it was not asked."""
        await self.check()
        self.session.hold_back(True)
        try:
            with trio.move_on_after(WAIT_SEC):
                while self.session.in_hand():  # noqa: ASYNC110  # many places would have to tell, for a rare guest
                    await trio.sleep(POLL_SEC)
                self.due.set()
        finally:
            if not self.due.is_set():
                self.session.hold_back(False)
        if self.due.is_set():
            await trio.sleep_forever()  # no answer: our end is one
        why = self.session.in_hand()
        raise CspError("busy", f"sidecar of {self.session.name}: {why} for {WAIT_SEC:g} s: it was not replaced")
