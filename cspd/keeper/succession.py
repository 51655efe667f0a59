"""Whether and when the installed version takes the keeper's place: tried by a child first, then executed.

What is handed over is `serve`'s to say, how it is done `reexec`'s. Who asked is answered by the version that took over,
or with the reason why none did.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from cspd.errors import CspError
from cspd.keeper import reexec
from cspd.keeper.peers import Later, Peer, Peers

log = logging.getLogger("csp-keeper")


@attrs.define(eq=False)
class Succession:
    """`state()` gives what is handed over. `ending()` takes signals that wait, and says whether the keeper ends."""

    peers: Peers
    state: Callable[[], dict[str, Any]]
    ending: Callable[[], bool]
    check: reexec.Check | None = None
    asked: tuple[Peer, Any] | None = None  # who wants it, and the id of the request

    def begin(self, peer: Peer, id: Any) -> Later:
        if self.ending() or self.check is not None:
            why = "it is ending" if self.check is None else "that is under way already"
            raise CspError("busy", f"keeper: {why}: it is not replaced", "try again later")
        self.check = reexec.start_check(reexec.KEEPER, self.state(), time.monotonic() + reexec.CHECK_SEC)
        self.asked = (peer, id)
        return Later()

    @property
    def deadline(self) -> float | None:
        return self.check.deadline if self.check is not None else None

    def press_on(self, now: float) -> None:
        if self.check is not None and self.check.deadline <= now:
            os.kill(self.check.pid, signal.SIGKILL)  # our child, not yet reaped

    def reaped(self, pid: int, status: Mapping[str, Any]) -> None:
        """If it was the check: be the installed version from now on, or say why not."""
        if self.check is None or pid != self.check.pid:
            return
        problem, self.check = self.check.verdict(status), None
        problem = problem or self._become()
        log.error("%s", problem)
        if self.asked is not None:
            self.peers.answer(*self.asked, problem)
        self.asked = None

    def _become(self) -> CspError:
        """Returns only with the reason why we go on."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, reexec.BLOCKED)
        try:
            if self.ending():
                return CspError("busy", "keeper: it is ending: it is not replaced")
            state = self.state()
            reexec.become(reexec.KEEPER, state, state["kept"])
        except OSError as exc:
            return CspError("not-replaced", f"keeper: {exc}", "the running version goes on")
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def to_plain(self) -> list[Any] | None:
        if self.asked is None or self.asked[0] not in self.peers.members:
            return None
        return [self.asked[0].sock.fileno(), self.asked[1]]
