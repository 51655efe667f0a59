"""`cspctl mcp`: a pipe between an agent CLI's MCP client on stdio and cspd, which answers.

What the methods do is cspd's. Here is only what outlives it: a request that cspd cannot answer gets an error, a new
cspd is connected to and told what the client said at its start, so that the CLI never loses its server.
"""

from __future__ import annotations

import os
import select
import time
from _socket import AF_UNIX, SOCK_STREAM, socket  # the C part: its Python wrapper costs a tenth of a start

from cspd.errors import CspError

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.main import Call

CHUNK = 1 << 16
FRAME_MAX = 1 << 20  # cspd takes no longer line
LINE_MAX = 8 << 20  # up to here we read a line, to tell by its id which request it was
RETRY_SEC = 0.1
CONNECT_SEC = 5.0
# A restart of cspd takes a second. What a CLI asks at its start may wait longer: it would give the server up.
PATIENCE_SEC = 3.0
START_PATIENCE_SEC = 8.0
START = ("initialize", "server/discover", "tools/list")
LAST_SEC = 2.0  # for answers that are still to come when the client has closed its end
REPLAYED = "cspctl-initialize"  # the id under which a new cspd is told of the client
UNREAD_MAX = 1 << 18  # bytes of lines that were passed on and not looked at yet


def mcp(call: Call) -> int:
    """An MCP server on standard input and output, for the agent that it runs in.

    Its tools: send_message, ask, read_messages, list_agents, room_state, wait_for. The profiles of claude, codex and
    gemini start it by themselves. Run outside of all agents, it speaks for the person; with --agent-only it then offers
    nothing. It outlives restarts of cspd.
    """
    wire = os.dup(1)
    os.dup2(2, 1)  # whatever prints, prints to stderr
    if call.flag("agent-only") and not os.environ.get("CSP_AGENT"):
        from cspctl.mcpidle import serve_nothing

        return serve_nothing(wire)
    try:
        Pipe(call.socket, wire).run()
    except BrokenPipeError:
        pass  # the CLI has ended
    return 0


class Lines:
    """Bytes in, lines out; of one over `limit` only the size is known."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = b""
        self._skipped = 0

    def feed(self, data: bytes) -> list[bytes | int]:
        found: list[bytes | int] = []
        *whole, self._held = (self._held + data).split(b"\n")
        for line in whole:
            size = self._skipped + len(line)
            found.append(size if size > self._limit else line)
            self._skipped = 0
        if self._skipped or len(self._held) > self._limit:
            self._skipped += len(self._held)
            self._held = b""
        return found


class Books:
    """Which requests cspd has not answered yet, and how the client introduced itself.

    Lines are kept as they went by and read only when it matters, so that no answer waits for the import of json: that
    takes as long as half a start of Python.
    """

    def __init__(self) -> None:
        self.initialize: dict[str, Any] = {}
        self._pending: list[int | str] = []
        self._unread: list[tuple[bool, bytes]] = []
        self._size = 0

    def note(self, line: bytes, *, answer: bool) -> None:
        self._unread.append((answer, line))
        self._size += len(line)
        if self._size > UNREAD_MAX:
            self._read()

    def pending(self) -> list[int | str]:
        self._read()
        return self._pending

    def forget_pending(self) -> None:
        self._pending = []

    def _read(self) -> None:
        for answer, line in self._unread:
            body = read(line)
            (self._answered if answer else self._asked)(body)
        self._unread, self._size = [], 0

    def _asked(self, body: dict[str, Any]) -> None:
        method, params = body.get("method"), body.get("params")
        if method == "initialize":
            self.initialize = body
        if method == "notifications/cancelled" and isinstance(params, dict):
            self._answered({"id": params.get("requestId")})  # it will not be answered
        if isinstance(method, str) and (id := id_of(body)) is not None:
            self._pending.append(id)

    def _answered(self, body: dict[str, Any]) -> None:
        id = id_of(body)
        if id in self._pending:
            self._pending.remove(id)


class Pipe:
    """Owner of the connection to cspd. Blocking: it sleeps in one `select`, and wakes for nothing but traffic."""

    def __init__(self, path: str, wire: int) -> None:
        self._path = path
        self._wire = wire
        self._connection: socket | None = None
        self._books = Books()
        self._from_client = Lines(LINE_MAX)
        self._from_cspd = Lines(1 << 30)

    def run(self) -> None:
        """Until the client closes its end and has the last answers. Raises BrokenPipeError when it is gone."""
        while True:
            sources: list[Any] = [0] if self._connection is None else [0, self._connection]
            ready = select.select(sources, [], [])[0]
            if self._connection in ready:
                self._take_answers()
            if 0 in ready and not self._take_requests():
                break
        self._finish()

    def _finish(self) -> None:
        ends = time.monotonic() + LAST_SEC
        while self._connection is not None and self._books.pending():
            left = ends - time.monotonic()
            if left <= 0 or not select.select([self._connection], [], [], left)[0]:
                break
            self._take_answers()

    def _take_requests(self) -> bool:
        """False at the end of input."""
        data = os.read(0, CHUNK)
        for line in self._from_client.feed(data or b"\n"):
            if isinstance(line, int) or len(line) > FRAME_MAX:
                self._refuse_oversize(line)
            elif line.strip():
                self._pass_on(line.rstrip(b"\r"))
        return bool(data)

    def _refuse_oversize(self, line: bytes | int) -> None:
        size, id = (line, None) if isinstance(line, int) else (len(line), id_of(read(line)))
        self._refuse(id, CspError("oversize", f"frame: {size} bytes: the limit is {FRAME_MAX}", "say less"))

    def _pass_on(self, line: bytes) -> None:
        try:
            self._send(line)
        except OSError as problem:
            body = read(line)
            if "method" not in body or (id := id_of(body)) is None:
                return  # a notification; an answer to nothing
            still = self._try_again(line, str(body["method"]), problem)
            if still is not None:
                self._refuse(id, unreachable(self._path, still))
                return
        self._books.note(line, answer=False)

    def _try_again(self, line: bytes, method: str, problem: OSError) -> OSError | None:
        """None when there was a cspd in time."""
        deadline = time.monotonic() + (START_PATIENCE_SEC if method in START else PATIENCE_SEC)
        while time.monotonic() < deadline and not isinstance(problem, PermissionError):
            time.sleep(RETRY_SEC)  # nothing announces that cspd is back
            try:
                self._send(line)
                return None
            except OSError as exc:
                problem = exc
        return problem

    def _send(self, line: bytes) -> None:
        """Raises OSError; then cspd has not got the whole line."""
        try:
            self._connect()
            assert self._connection is not None
            self._connection.sendall(line + b"\n")
        except OSError:
            self._lost()
            raise

    def _connect(self) -> None:
        """Unless it is: a cspd that has ended is noticed here, too. A new one hears the handshake again."""
        if self._connection is not None:
            while self._connection is not None and select.select([self._connection], [], [], 0)[0]:
                self._take_answers()
            if self._connection is not None:
                return
        connection = socket(AF_UNIX, SOCK_STREAM)
        connection.settimeout(CONNECT_SEC)
        try:
            connection.connect(self._path)
            if self._books.initialize:
                connection.sendall(encode({**self._books.initialize, "id": REPLAYED}))
                connection.sendall(encode({"jsonrpc": "2.0", "method": "notifications/initialized", "params": {}}))
        except OSError:
            connection.close()
            raise
        self._connection = connection
        self._from_cspd = Lines(1 << 30)

    def _take_answers(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        for line in self._from_cspd.feed(data):
            if isinstance(line, bytes) and REPLAYED.encode() not in line[:64]:
                self._write(line + b"\n")
                self._books.note(line, answer=True)

    def _lost(self) -> None:
        """cspd is gone; the next request looks for a new one. Whether it did what it was asked for is not known."""
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        sentence, hint = f"cspd: {self._path}: ended before it answered", "read_messages shows what was done"
        for id in self._books.pending():
            self._refuse(id, CspError("unreachable", sentence, hint))
        self._books.forget_pending()

    def _refuse(self, id: int | str | None, problem: CspError) -> None:
        from cspd.wire import rpc

        self._write(rpc.error(id, problem))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._wire, data) :]


def read(line: bytes) -> dict[str, Any]:
    """An object; an empty one for what cspd will refuse to read."""
    import json

    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def encode(body: dict[str, Any]) -> bytes:
    from cspd.wire import rpc

    return rpc.encode(body)


def id_of(body: dict[str, Any]) -> int | str | None:
    """None where there is none, as in notifications."""
    id = body.get("id")
    return id if isinstance(id, int | str) else None


def unreachable(path: str, problem: OSError) -> CspError:
    if isinstance(problem, PermissionError):
        sentence = f"cspd: {path}: it may not be connected to from here: {problem.strerror}"
        return CspError("unreachable", sentence, "ask the person to let the MCP server csp run outside of the sandbox")
    why = "not running" if isinstance(problem, FileNotFoundError | ConnectionRefusedError) else str(problem)
    return CspError("unreachable", f"cspd: {path}: {why}", "the person starts it: systemctl --user start cspd")
