"""`cspctl attach`: relays between the person's terminal and an agent's sidecar, and outlives both.

Knows the frames, and when to wait or to leave. The terminal is `terminal`'s, the socket `sidecarlink`'s, the
detach key `detachkey`'s; whether an agent comes back is cspd's to say.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from cspctl.fate import Standing, WhyDown, how_it_ended
from cspctl.sidecarlink import SidecarLink
from cspctl.terminal import Signals, Terminal
from cspd.errors import CspError
from cspd.wire import detachkey
from cspd.wire.detachkey import DetachKey, KeyWatch, Verdict
from cspd.wire.frames import FrameError, Kind, frame
from cspd.wire.version import PROTOCOL, check_protocol

_UNSENT_MAX = 1 << 18  # typed bytes that we hold for a sidecar that does not read; then the terminal is not read either
_PAUSE_MIN_SEC, _PAUSE_MAX_SEC = 0.02, 0.5  # between attempts to connect
_ASK_MIN_SEC, _ASK_MAX_SEC = 0.1, 1.0  # between questions to cspd while we wait
_SILENT_SEC = 1.0  # a sidecar that crashed is back long before; then the person is told that we wait
_STEADY_SEC = 2.0  # a connection that lived so long was a good one: the next loss is tried again at once
_PATIENCE_SEC = 10.0  # with neither sidecar nor cspd
# Keys that stay in a terminal that we lend at so many looks are not read: the sidecar hangs, or the program is stuck.
# In a paste there are always some: it would be one of a hundred megabytes.
_UNREAD_SEC, _UNREAD_LOOKS = 1.0, 3
_CTRL_C = b"\x03"


def attach(
    name: str,
    path: Path,
    *,
    read_only: bool,
    detach_key: str,
    why_down: WhyDown,
    talk: TextIO | None = None,
    tell_end: bool = True,
) -> int:
    """Make this terminal the agent's until the person detaches or the agent ends for good.

    Returns the exit status: 0 after a detach and when the agent is inactive or ended with status 0,
    128 + number after a signal, 1 otherwise. `tell_end`: the person is told how it ended.
    Raises CspError where attaching is not possible. The terminal is as before in every case.
    """
    key = detachkey.parse(detach_key)
    _check_ours(path.parent)
    with Signals() as signals, Terminal() as terminal:
        attachment = _Attachment(name, SidecarLink(path), terminal, signals, key, why_down, read_only)
        attachment.tell_end = tell_end
        outcome = attachment.run()
    if outcome.line and tell_end:
        print(f"[{outcome.line}]", file=talk or sys.stderr)
    return outcome.status


class _Outcome(NamedTuple):
    status: int
    line: str


class _Phase(Enum):
    SEEKING = "no connection"
    GREETING = "connected; perhaps in the backlog of a sidecar that is still to come"
    ATTACHED = "HELLO was answered"


class _Attachment:
    """The state of one `cspctl attach`: one loop, one poll, no waiting anywhere else."""

    def __init__(
        self,
        name: str,
        link: SidecarLink,
        terminal: Terminal,
        signals: Signals,
        key: DetachKey | None,
        why_down: WhyDown,
        read_only: bool,
    ) -> None:
        self._name = name
        self._link = link
        self._terminal = terminal
        self._signals = signals
        self._key = key
        self._keys = KeyWatch(key)
        self._why_down = why_down
        self._read_only = read_only
        self.tell_end = True
        self._phase = _Phase.SEEKING
        self._outcome: _Outcome | None = None
        self._leaving = False  # with what is on the screen now; otherwise the rest of the output is shown first
        # what is known of the agent
        self._been_attached = False
        self._incarnation: object = None
        self._ended: object = None  # the incarnation whose EXIT we saw last
        self._status: Mapping[str, Any] | None = None  # of that EXIT; None while it runs
        self._painted = False  # then the terminal's own history has what scrolled away before
        self._may_lend = True
        self._unread_looks = 0  # the last so many found keys
        self._painting = False  # a REPAINT is not yet drawn, and a sidecar that borrows the terminal waits for that
        # while not attached
        now = time.monotonic()
        self._since = self._next_try = now
        self._next_ask = now + _ASK_MIN_SEC
        self._pause = self._ask_pause = 0.0
        self._waiting_shown = False
        self._without_cspd: float | None = None
        self._poll, self._polled = select.poll(), dict[int, int]()

    # -- the loop

    def run(self) -> _Outcome:
        try:
            while True:
                if self._outcome is None and self._phase is not _Phase.ATTACHED:
                    self._seek()
                if self._outcome is not None and (self._leaving or not self._terminal.pending):
                    return self._outcome
                self._turn()
        except FrameError as exc:
            raise CspError("protocol", f"sidecar of {self._name}: {exc}", "install one version of CSP") from exc
        finally:
            self._link.close()

    def _turn(self) -> None:
        """Wait for what may go on, and do it. A side that takes nothing stops only what is meant for it."""
        tty, link = self._terminal, self._link
        wanted = {self._signals.fd: select.POLLIN}
        if self._lends:
            wanted[tty.read_fd] = 0  # a hang-up is told all the same
        elif self._listens_to_keys():
            wanted[tty.read_fd] = select.POLLIN
        if tty.pending:
            wanted[tty.write_fd] = wanted.get(tty.write_fd, 0) | select.POLLOUT
        if link.fd >= 0 and self._outcome is None:
            # Of a sidecar that borrows the terminal comes no more than a picture at a time, and the key that leaves.
            listens = self._lends or not tty.pending
            events = (select.POLLIN if listens else 0) | (select.POLLOUT if link.wants_to_send else 0)
            if events:  # with no events wanted poll would still report a hang-up, over and over
                wanted[link.fd] = events
        ready = dict(self._poll_for(wanted).poll(self._timeout_ms()))
        if self._signals.came or self._signals.fd in ready:  # a resize just before keys is not in `ready` yet
            self._heed(self._signals.take())
        if not ready and self._lends:
            self._look_after_keys()
        if ready.get(link.fd, 0) & select.POLLOUT:
            link.send_some()
        if ready.get(tty.read_fd, 0) & ~select.POLLOUT:
            self._typed()
        if wanted.get(link.fd, 0) & select.POLLIN and ready.get(link.fd, 0) & ~select.POLLOUT:
            self._received()
        if not tty.write_some():
            return self._leave(1, "")  # hung up: there is nobody to talk to
        if self._painting and not tty.pending:
            self._painting = False
            link.send(Kind.PAINTED, b"")

    def _poll_for(self, wanted: dict[int, int]) -> select.poll:
        """Most turns want the same as the one before."""
        if wanted != self._polled:
            self._poll, self._polled = select.poll(), wanted
            for fd, events in wanted.items():
                self._poll.register(fd, events)
        return self._poll

    @property
    def _lends(self) -> bool:
        """The sidecar reads the keys and writes what the agent prints; we draw pictures, and take the terminal back."""
        return self._link.lent and self._phase is _Phase.ATTACHED and self._outcome is None

    def _listens_to_keys(self) -> bool:
        """Keys are left in the terminal while a new sidecar is due at any moment: it shall get them.

        Not so those that were typed for an agent that has ended.
        """
        if self._outcome is not None or self._waiting_shown or self._status is not None:
            return True
        return self._phase is _Phase.ATTACHED and self._link.unsent < _UNSENT_MAX

    def _timeout_ms(self) -> int | None:
        if self._lends:
            return int(_UNREAD_SEC * 1000)
        if self._outcome is not None or self._phase is _Phase.ATTACHED:
            return None
        due = self._next_ask if self._phase is _Phase.GREETING else min(self._next_ask, self._next_try)
        return max(0, int((due - time.monotonic()) * 1000) + 1)

    def _heed(self, signals: frozenset[int]) -> None:
        if signal.SIGTSTP in signals:
            self._seek_again()
            os.kill(os.getpid(), signal.SIGSTOP)
            signals |= self._signals.take()  # we were woken up
        if signal.SIGCONT in signals:
            # The shell has used the terminal since we were stopped: a new connection gives a whole picture.
            self._terminal.make_raw()
            if self._phase is _Phase.ATTACHED:
                self._seek_again()
        if signal.SIGWINCH in signals and self._phase is not _Phase.SEEKING:
            rows, columns = self._terminal.size()
            self._link.send(Kind.RESIZE, json.dumps({"rows": rows, "columns": columns}).encode())
        for number in sorted(signals - {signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH}):
            self._leave(128 + number, f"detached from {self._name}: {signal.Signals(number).name}")

    def _look_after_keys(self) -> None:
        """The detach key must work whatever the sidecar does: then we read the keys ourselves from now on."""
        self._unread_looks = self._unread_looks + 1 if self._terminal.unread else 0
        if self._unread_looks >= _UNREAD_LOOKS:
            self._may_lend = False
            self._seek_again()

    def _typed(self) -> None:
        chunk = self._terminal.read()
        if chunk is None:
            return
        if not chunk:
            return self._leave(1, "")
        verdict = self._keys.judge(chunk)
        attached = self._phase is _Phase.ATTACHED and self._outcome is None
        if verdict is Verdict.DETACH or (chunk == _CTRL_C and not attached):
            if attached and not self._read_only and (typed := self._keys.before(chunk)):
                self._link.send(Kind.INPUT, typed)
            self._detach()
        elif verdict is Verdict.PASS and not self._read_only:
            if attached:
                self._link.send(Kind.INPUT, chunk)
            elif not self._waiting_shown and self._expects_the_same:
                self._link.keep(chunk)

    def _detach(self) -> None:
        self._leave(0, f"detached from {self._name}")

    def _leave(self, status: int, line: str) -> None:
        self._leaving = True
        self._outcome = self._outcome or _Outcome(status, line)

    # -- what the sidecar says

    def _received(self) -> None:
        frames = self._link.receive()
        if frames is None:
            return self._seek_again()
        for kind, payload in frames:
            if self._phase is _Phase.SEEKING:
                return  # EXIT was the last that counts
            self._frame(kind, payload)

    def _frame(self, kind: Kind, payload: bytes) -> None:
        match kind:
            case Kind.REFUSED:
                from cspd.wire.rpc import error_from  # 12 ms of imports that most attaches do not need

                raise error_from(_object(payload))
            case Kind.HELLO:
                self._greeted(_object(payload))
            case _ if self._phase is not _Phase.ATTACHED:
                raise FrameError(f"attach frame: {kind.name}: came before HELLO")
            case Kind.OUTPUT:
                self._terminal.output(payload)
            case Kind.REPAINT:
                self._terminal.repaint(payload)
                self._painted = True
                self._painting = self._link.lent
            case Kind.DETACH:
                self._detach()
            case Kind.TAKEN:
                self._link.taken(int.from_bytes(payload, "big"))
            case Kind.EXIT:
                self._exited(_object(payload).get("status"))
            case _:
                pass  # a later sidecar may say what we need not know

    def _greeted(self, hello: Mapping[str, Any]) -> None:
        check_protocol(hello.get("protocol"), f"sidecar of {self._name}")
        incarnation = hello.get("incarnation")
        if incarnation is not None and incarnation == self._ended:
            return self._seek_again()  # the sidecar of the ended incarnation, on its way out
        self._link.greeted(self._incarnation in (None, incarnation), lent=hello.get("lent") is True)
        self._incarnation, self._status = incarnation, None
        self._phase, self._been_attached = _Phase.ATTACHED, True
        self._since = time.monotonic()
        self._waiting_shown = False
        self._without_cspd = None

    def _exited(self, status: object) -> None:
        self._status = status if isinstance(status, dict) else {}
        self._ended = self._incarnation
        if self.tell_end:
            self._terminal.say(f"[{self._name} {how_it_ended(self._status)}]")
        self._link.forget_input()  # it was meant for the one that ended
        self._seek_again()
        self._next_ask = self._since

    # -- while nobody answers

    def _seek_again(self) -> None:
        """The connection is lost: try again at once, then with growing pauses, and ask cspd when it lasts."""
        now = time.monotonic()
        steady = self._phase is _Phase.ATTACHED and now - self._since > _STEADY_SEC
        if self._phase is _Phase.ATTACHED:
            self._since, self._ask_pause = now, 0.0
            self._next_ask = now + _ASK_MIN_SEC
        self._link.close(to_come_back=True)
        self._painting = False
        self._phase = _Phase.SEEKING
        self._pause = 0.0 if steady else self._pause
        self._next_try = now + self._pause
        self._pause = min(max(self._pause * 2, _PAUSE_MIN_SEC), _PAUSE_MAX_SEC)

    def _seek(self) -> None:
        now = time.monotonic()
        if now >= self._next_ask:
            self._ask(now)
        if self._outcome is None and self._phase is _Phase.SEEKING and now >= self._next_try:
            self._try(now)

    def _try(self, now: float) -> None:
        try:
            self._link.connect(frame(Kind.HELLO, self._hello()), self._terminal.lendable if self._may_lend else None)
            self._phase = _Phase.GREETING
        except OSError:  # no socket, nobody behind it, or a full backlog: cspd will say which of them lasts
            self._next_try = now + self._pause
            self._pause = min(max(self._pause * 2, _PAUSE_MIN_SEC), _PAUSE_MAX_SEC)
            if self._ask_pause == 0.0 and not self._been_attached:
                self._next_ask = now

    def _hello(self) -> bytes:
        rows, columns = self._terminal.size()
        hello = {
            "protocol": PROTOCOL,
            "rows": rows,
            "columns": columns,
            "read_only": self._read_only,
            "detach_key": self._key.name if self._key else "none",
            "scrollback": not self._painted,
            "taken": True,
            "term": os.environ.get("TERM", ""),
        }
        return json.dumps(hello).encode()

    def _ask(self, now: float) -> None:
        found = self._why_down()
        self._ask_pause = min(max(self._ask_pause * 2, _ASK_MIN_SEC), _ASK_MAX_SEC)
        self._next_ask = time.monotonic() + self._ask_pause
        if found is None:
            self._bear_silence(now)
        elif not found.comes_back:
            self._give_up(found)
        else:
            self._without_cspd = None
            if found.state == "backoff" or now - self._since > _SILENT_SEC:
                self._show_waiting(found.reason or f"{found.state}, but its sidecar does not answer")

    def _give_up(self, found: Standing) -> None:
        what = f"{found.state}: {found.reason}" if found.reason else found.state
        if self._status is not None:  # then how it ended has been said
            what = what.removesuffix(f": {how_it_ended(self._status).removeprefix('was ')}")
        if not self._been_attached:
            raise CspError("not-active", f"agent: {self._name}: {what}", f"cspctl start {self._name}")
        ended_well = self._status is not None and self._status.get("code") == 0
        if ended_well:
            self._outcome = _Outcome(0, "")
        else:
            self._outcome = _Outcome(0 if found.state == "inactive" else 1, f"{self._name}: {what}")

    def _bear_silence(self, now: float) -> None:
        """Neither sidecar nor cspd: both may be on their way back."""
        if not self._been_attached and self._phase is _Phase.SEEKING:
            raise CspError(
                "unreachable",
                "cspd: no answer: it cannot be reached",
                "systemctl --user start cspd, or: cspd &",
            )
        if self._without_cspd is None:
            self._without_cspd = now
        if now - self._without_cspd > _PATIENCE_SEC:
            self._outcome = _Outcome(1, f"{self._name}: neither its sidecar nor cspd answers")
        elif now - self._since > _SILENT_SEC:
            self._show_waiting("no answer, and cspd cannot be reached")

    @property
    def _expects_the_same(self) -> bool:
        """The agent that the person sees has not ended, as far as we know: what is typed is meant for it."""
        return self._been_attached and self._status is None and self._outcome is None

    def _show_waiting(self, why: str) -> None:
        # What was typed before they are told is not lost; afterwards only the key that leaves counts.
        while not self._waiting_shown and self._expects_the_same and self._terminal.unread:
            if self._link.unsent >= _UNSENT_MAX:
                break
            self._typed()
        if self._outcome is not None:
            return
        self._terminal.note(f"[{self._name}: {why} ... press {self._key.name if self._key else '^C'} to leave]")
        self._waiting_shown = True


def _check_ours(directory: Path) -> None:
    """A socket in a directory of somebody else may be anybody's: what is typed would be theirs."""
    try:
        facts = directory.stat()
    except OSError:
        return  # no directory, no socket: cspd will say why
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise CspError(
            "not-private",
            f"directory: {directory}: others can write to it",
            "set XDG_RUNTIME_DIR to one of yours",
        )


def _object(payload: bytes) -> dict[str, Any]:
    try:
        body = json.loads(payload)
    except ValueError as exc:
        raise FrameError(f"attach frame: not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise FrameError(f"attach frame: {body!r}: expected an object")
    return body
