"""One connection from a command line to cspd: calls, several calls in flight, and the event stream.

Blocking and small, because a start of Python is most of what `cspctl send` costs. The verbs know what to ask.
`where` knows the path.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import deque

from cspd import __version__
from cspd.errors import CspError
from cspd.wire import rpc
from cspd.wire.version import PROTOCOL

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any

FIRST_PAUSE_SEC = 0.05  # before cspd is tried again; doubled until
LAST_PAUSE_SEC = 1.0
GREETING_SEC = 10.0  # one that lives answers `hello` at once, whatever else it has to do
PATIENCE_SEC = 30.0  # for an answer that cspd can give at once; verbs that wait for something pass None


def reach(path: str) -> Client | None:
    """A client, or None when cspd is not running: unit files can be changed without it."""
    try:
        return Client(path)
    except CspError as problem:
        if problem.code != "unreachable":
            raise
        return None


class Client:
    """Owner of one connection; use it in a `with` block. Not for several threads."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._connection = _connect(path)
        self._lines = self._connection.makefile("rb")
        self._last_id = 0
        self._answers: dict[rpc.Id, rpc.Response] = {}
        self._events: deque[dict[str, Any]] = deque()
        # It goes out with the first call. Nothing waits for its answer, of which only a refusal matters, or that there
        # is none.
        self._hello = 0
        self._greeted = False
        hello = {"protocol": PROTOCOL, "program": "cspctl", "version": __version__}
        self._unsent = rpc.request("hello", hello, self._hello)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def call(self, method: str, params: Mapping[str, Any], patience: float | None = PATIENCE_SEC) -> Any:
        """The result of one call; raises the CspError that cspd answers, or `unreachable`.

        `patience` bounds each silence in seconds; None waits as long as the connection lasts.
        """
        return self.reply(self.post(method, params), patience)

    def post(self, method: str, params: Mapping[str, Any]) -> int:
        """Send a call without waiting; give its id to `reply`."""
        self._last_id += 1
        lines = self._unsent + rpc.request(method, params, self._last_id)
        self._unsent = b""
        try:
            self._connection.sendall(lines)
        except OSError as exc:
            raise self._gone() from exc
        return self._last_id

    def reply(self, call: int, patience: float | None = PATIENCE_SEC) -> Any:
        """The result of a posted call; the answers of others are kept for their own turn."""
        try:
            while call not in self._answers:
                self._take(patience)
        except TimeoutError as exc:
            sentence = f"cspd: {self.path}: no answer within {patience:g} s"
            raise CspError("unreachable", sentence, "systemctl --user status cspd") from exc
        answer = self._answers.pop(call)
        if answer.error is not None:
            raise rpc.error_from(answer.error)
        return answer.result

    def each(self, method: str, several: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[CspError]]:
        """All calls at once, so that slow ones do not add up: -> results, and what the others were refused with."""
        done: list[Any] = []
        refused: list[CspError] = []
        for one in [self.post(method, params) for params in several]:
            try:
                done.append(self.reply(one, None))
            except CspError as refusal:
                if refusal.code == "unreachable":
                    raise
                refused.append(refusal)
        return done, refused

    def events(self, until: float | None = None) -> Iterator[dict[str, Any]]:
        """Events in order, after `events.subscribe`; raises `unreachable` when the connection ends.

        It ends at the monotonic time `until`, and the client can only be closed then.
        """
        while True:
            while self._events:
                yield self._events.popleft()
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            try:
                self._take(left)
            except TimeoutError:
                return

    def _take(self, patience: float | None) -> None:
        """Read one line and put it where it belongs; raises TimeoutError."""
        message = rpc.decode(self._read_line(patience))
        match message:
            case rpc.Request(method="event"):
                self._events.append(message.params)
            case rpc.Request():
                pass  # a notification of a newer cspd
            case rpc.Response() if message.id == self._hello:
                self._greeted = True
                problem = rpc.error_from(message.error) if message.error else None
                if problem is not None and problem.code == "protocol":
                    raise problem
            case rpc.Response(id=None) if message.error is not None:
                raise rpc.error_from(message.error)  # cspd could not read which call it was
            case rpc.Response():
                self._answers[message.id] = message

    def _read_line(self, patience: float | None) -> bytes:
        limits = [sec for sec in (patience, None if self._greeted else GREETING_SEC) if sec is not None]
        self._connection.settimeout(min(limits, default=None))
        try:
            line = self._lines.readline()
        except TimeoutError:
            if self._greeted or min(limits) == patience:
                raise
            sentence = f"cspd: {self.path}: accepts connections, but does not answer"
            raise CspError("unreachable", sentence, "systemctl --user status cspd") from None
        except OSError as exc:
            raise self._gone() from exc
        if not line.endswith(b"\n"):
            raise self._gone()
        return line

    def _gone(self) -> CspError:
        sentence = f"cspd: {self.path}: ended before it answered"
        return CspError("unreachable", sentence, "look at what was done before you try it again")


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_SEC)
    try:
        connection.connect(path)
    except OSError as exc:
        connection.close()
        if exc.errno is None:  # "AF_UNIX path too long" has no number
            from cspd.paths import check_socket_path

            check_socket_path(path)
        if exc.errno == errno.EPERM:  # not what a file's mode gives: a sandbox, codex's around its shell for one
            sentence = f"cspd: {path}: the sandbox around this program forbids it to connect"
            raise CspError("unreachable", sentence, "say it by the tool send_message of the MCP server csp") from exc
        raise CspError("unreachable", f"cspd: {path}: {_why(exc)}", "systemctl --user start cspd, or: cspd &") from exc
    return connection


def _why(problem: OSError) -> str:
    match problem:
        case FileNotFoundError() | ConnectionRefusedError() | NotADirectoryError():
            return "not running"
        case TimeoutError():
            return "does not accept connections"
        case _:
            return problem.strerror or str(problem)


def follow(path: str, since: int | None, room: str | None, talk: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Events for ever, across restarts of cspd; only the first connection may fail.

    Each event's cursor is remembered, so the next connection goes on right behind it.
    """
    client = Client(path)
    pause = FIRST_PAUSE_SEC
    while True:
        try:
            with client:
                params = {key: value for key, value in (("since", since), ("room", room)) if value is not None}
                begun = client.call("events.subscribe", params)["cursor"]
                since = begun if since is None else since
                pause = FIRST_PAUSE_SEC
                for event in client.events():
                    since = event["cursor"]
                    yield event
        except CspError as problem:
            if problem.code != "unreachable":
                raise
        talk("cspd is gone; waiting for it")
        client = _connect_again(path, pause)
        talk("cspd is back")
        pause = min(pause * 2, LAST_PAUSE_SEC)


def _connect_again(path: str, pause: float) -> Client:
    while True:
        time.sleep(pause)  # nothing announces that cspd is back
        try:
            return Client(path)
        except CspError:
            pause = min(pause * 2, LAST_PAUSE_SEC)
