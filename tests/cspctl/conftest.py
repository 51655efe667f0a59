"""A desk with a terminal; a stand-in for cspd, which gives prepared answers and knows what it was asked."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk

from cspd.errors import CspError
from cspd.wire import rpc

Answer = Any  # a value, a CspError, or a function of the params that returns either
END = object()  # an answer: close the connection instead


class FakeCspd:
    """Answers each method from `answers`; other methods get an error, as with the real one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {"hello": {"protocol": 1, "program": "cspd", "version": "0.1.0"}}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.after: dict[str, list[Any]] = {}  # notifications that follow the answer to a method; END closes
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._connections: list[socket.socket] = []
        self._threads[0].start()

    def params(self, method: str) -> dict[str, Any]:
        """What the last call of `method` said."""
        return [params for name, params in self.asked if name == method][-1]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was first
        for thread in self._threads:
            thread.join(5)
        self._listener.close()
        self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    if not self._reply(connection, json.loads(line)):
                        return
            except OSError:
                return  # the client went away

    def _reply(self, connection: socket.socket, request: dict[str, Any]) -> bool:
        method, params = request["method"], request["params"]
        if method != "hello":
            self.asked.append((method, params))
        answer = self.answers.get(method, CspError("no-such-method", f"method: {method}: not known"))
        if callable(answer):
            answer = answer(params)
        if answer is END:
            return False
        if isinstance(answer, CspError):
            connection.sendall(rpc.error(request["id"], answer))
        else:
            connection.sendall(rpc.result(request["id"], answer))
        for event in self.after.pop(method, []):
            if event is END:
                return False
            connection.sendall(rpc.request("event", event))
        return True


@pytest.fixture
def end() -> object:
    return END


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An instance's runtime directory: every path is below tmp_path, and no variable is an agent's."""
    for variable, name in (("RUNTIME_DIR", "r"), ("CONFIG_HOME", "c"), ("STATE_HOME", "s")):
        monkeypatch.setenv(f"XDG_{variable}", str(tmp_path / name))
    for variable in ("CSP_SOCKET", "CSP_AGENT", "CSP_ROOM", "VISUAL", "EDITOR"):
        monkeypatch.delenv(variable, raising=False)
    runtime = tmp_path / "r" / "csp"
    runtime.mkdir(parents=True, mode=0o700)
    return runtime


@pytest.fixture
def cspd(instance: Path) -> Iterator[FakeCspd]:
    fake = FakeCspd(instance / "cspd.sock")
    yield fake
    fake.close()


@pytest.fixture
def make_agent() -> Callable[..., dict[str, Any]]:
    """An Agent as cspd tells it, with the given fields changed."""

    def make(**changes: Any) -> dict[str, Any]:
        agent = {
            "name": "alpha",
            "state": "running",
            "activity": "idle",
            "pid": 123,
            "uptime_sec": 65.0,
            "restarts": 0,
            "queued": 0,
            "attached": 1,
            "room": "lobby",
            "profile": "shell",
            "command": ["bash", "-i"],
            "reason": "",
            "want": "up",
            "sidecar": {"pid": 124},
            "paused": False,
            "autostart": True,
            "activity_reason": "prompt at the cursor",
        }
        return agent | changes

    return make


@pytest.fixture
def make_message() -> Callable[..., dict[str, Any]]:
    """A Message as cspd tells it, with the given fields changed."""

    def make(**changes: Any) -> dict[str, Any]:
        message = {
            "seq": 7,
            "message_id": "0123456789abcdef",
            "room": "lobby",
            "from": "alpha",
            "to": "beta",
            "content": "hello",
            "meta": {},
            "ts": 1_700_000_000.0,
            "kind": "message",
            "deliveries": {"beta": {"step": "held", "reason": "busy", "ts": 1_700_000_001.0}},
        }
        return message | changes

    return make


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()
