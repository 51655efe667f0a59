"""The pipe between an MCP client and cspd: what it does when cspd is away, comes back, or is asked too much.

It is a process of its own, as a CLI starts it; the test plays both of its ends, line by line.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cspctl.mcp import FRAME_MAX, LINE_MAX, Lines
from cspctl.where import control_socket
from cspd.paths import Paths

pytestmark = pytest.mark.real

PATIENCE_SEC = 30.0
INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}


class Server:
    """cspd's end: one connection after the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE_SEC)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._lines: Any = None

    def accept(self) -> None:
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(PATIENCE_SEC)
        self._lines = self._connection.makefile("rb")

    def take(self) -> dict[str, Any]:
        if self._connection is None:
            self.accept()
        body: dict[str, Any] = json.loads(self._lines.readline())
        return body

    def give(self, **body: Any) -> None:
        assert self._connection is not None
        self._connection.sendall(json.dumps({"jsonrpc": "2.0", **body}).encode() + b"\n")

    def answer(self, method: str, result: Any = "done") -> None:
        """Take one request, which must be this one, and answer it."""
        request = self.take()
        assert request["method"] == method
        self.give(id=request["id"], result=result)

    def close(self) -> None:
        for each in (self._lines, self._connection, self._listener):
            if each is not None:
                each.close()
        self._path.unlink(missing_ok=True)


class Client:
    """The CLI's end."""

    def __init__(self, *options: str, **environment: str) -> None:
        command = [sys.executable, "-P", "-m", "cspctl", "mcp", *options]
        self.process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | environment
        )

    def send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        data = line + b"\n"
        while data:
            data = data[self.process.stdin.write(data) :]

    def ask(self, id: int | str, method: str, **params: Any) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode())

    def notify(self, method: str, **params: Any) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode())

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE_SEC)[0], "no line came"
        body: dict[str, Any] = json.loads(self.process.stdout.readline())
        return body

    def is_silent(self) -> bool:
        """Asked something else, it answers that and nothing before it. Only for when cspd is away."""
        self.send(b"x" * (FRAME_MAX + 1))
        return "frame" in self.read()["error"]["message"]

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_SEC)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.kill()
        self.process.wait()
        for each in (self.process.stdin, self.process.stdout):
            assert each is not None
            each.close()


@pytest.fixture
def server(instance: Path) -> Iterator[Server]:
    made = Server(instance / "cspd.sock")
    yield made
    made.close()


@pytest.fixture
def client(instance: Path) -> Iterator[Client]:
    with Client() as made:
        yield made


def greeted(client: Client, server: Server) -> None:
    client.ask(1, "initialize", **INITIALIZE)
    server.answer("initialize")
    assert client.read()["id"] == 1


def test_lines_go_through_both_ways_as_they_are(client: Client, server: Server) -> None:
    client.send('{"jsonrpc":"2.0", "id":"ü", "method":"tools/list"}'.encode())
    assert server.take() == {"jsonrpc": "2.0", "id": "ü", "method": "tools/list"}
    server.give(method="notifications/progress", params={"progress": 1})
    server.give(id="ü", result={"tools": []})
    assert client.read() == {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}
    assert client.read() == {"jsonrpc": "2.0", "id": "ü", "result": {"tools": []}}
    assert client.end() == 0


def test_each_request_gets_an_error_that_says_so_while_cspd_is_away(client: Client) -> None:
    for number in (1, 2):
        client.ask(number, "tools/call", name="list_agents")
        reply = client.read()
        assert reply["id"] == number
        assert "not running" in reply["error"]["message"]
        assert reply["error"]["data"]["code"] == "unreachable"
    client.notify("notifications/initialized")
    assert client.is_silent()


def test_a_cspd_that_comes_late_is_waited_for(client: Client, instance: Path) -> None:
    assert client.is_silent()
    client.ask(1, "initialize", **INITIALIZE)
    time.sleep(0.3)  # cspd is away for a while
    server = Server(instance / "cspd.sock")
    try:
        greeted_id = server.take()["id"]
        server.give(id=greeted_id, result={})
        assert client.read() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    finally:
        server.close()


def test_a_restarted_cspd_is_found_and_hears_the_handshake_again(
    client: Client, server: Server, instance: Path
) -> None:
    greeted(client, server)
    client.notify("notifications/initialized")
    assert server.take()["method"] == "notifications/initialized"
    server.close()
    second = Server(instance / "cspd.sock")
    try:
        client.ask(2, "tools/list")
        replayed = second.take()
        assert (replayed["method"], replayed["params"]) == ("initialize", INITIALIZE)
        assert second.take()["method"] == "notifications/initialized"
        second.give(id=replayed["id"], result={"not": "for the client"})
        second.answer("tools/list", {"tools": []})
        assert client.read() == {"jsonrpc": "2.0", "id": 2, "result": {"tools": []}}
    finally:
        second.close()


def test_what_cspd_did_not_answer_before_it_ended_is_an_error_and_is_not_asked_again(
    client: Client, server: Server, instance: Path
) -> None:
    greeted(client, server)
    for number in (2, 3, 4):
        client.ask(number, "tools/call", name="send_message")
        assert server.take()["id"] == number
    server.give(id=3, result={})
    assert client.read()["id"] == 3
    server.close()
    replies = [client.read(), client.read()]
    assert [reply["id"] for reply in replies] == [2, 4]
    assert all("ended before it answered" in reply["error"]["message"] for reply in replies)
    second = Server(instance / "cspd.sock")
    try:
        client.ask(5, "ping")
        asked = [second.take()["method"] for _ in range(3)]
        assert asked == ["initialize", "notifications/initialized", "ping"]
        second.give(id=5, result={})
        assert client.read()["id"] == 5
    finally:
        second.close()
    assert client.is_silent(), "they had their error already"


def test_a_request_that_was_cancelled_gets_no_error_when_cspd_ends(client: Client, server: Server) -> None:
    greeted(client, server)
    client.ask(2, "tools/call", name="ask")
    client.notify("notifications/cancelled", requestId=2)
    assert [server.take()["method"] for _ in range(2)] == ["tools/call", "notifications/cancelled"]
    server.close()
    assert client.is_silent()


def test_a_line_that_is_too_long_costs_only_itself(client: Client, server: Server) -> None:
    client.ask(7, "tools/call", content="x" * FRAME_MAX)
    reply = client.read()
    assert reply["id"] == 7
    assert f"the limit is {FRAME_MAX}" in reply["error"]["message"]
    client.send(b'{"id": 8, "content": "' + b"x" * LINE_MAX + b'"}')
    assert client.read()["id"] is None, "so long that nobody looked for its id"
    greeted(client, server)


def test_what_is_no_json_is_left_to_cspd_to_refuse(client: Client, server: Server) -> None:
    client.send(b"{nonsense")
    client.ask(1, "ping")
    server.accept()
    assert server._lines.readline() == b"{nonsense\n"
    assert server.take()["method"] == "ping"


def test_answers_still_come_when_the_client_has_said_its_last(client: Client, server: Server) -> None:
    client.ask(1, "ping")
    request = server.take()
    assert client.process.stdin is not None
    client.process.stdin.close()
    server.give(id=request["id"], result={})
    assert client.read()["id"] == 1
    assert client.process.wait(PATIENCE_SEC) == 0


def test_it_ends_with_its_client(client: Client, server: Server) -> None:
    greeted(client, server)
    assert client.end() == 0
    assert server._connection is not None
    assert server._connection.recv(1) == b""


def test_it_ends_quietly_when_nobody_reads_its_answers(client: Client, server: Server) -> None:
    greeted(client, server)
    assert client.process.stdout is not None
    client.process.stdout.close()
    client.ask(2, "ping")
    server.answer("ping")
    assert client.process.wait(PATIENCE_SEC) == 0


def test_a_waiting_pipe_takes_no_processor_time(client: Client, server: Server) -> None:
    greeted(client, server)

    def wakeups() -> int:
        text = Path(f"/proc/{client.process.pid}/status").read_text()
        return int(text.split("voluntary_ctxt_switches:")[1].split()[0])

    time.sleep(0.2)  # the last answer may still be noted
    before = wakeups()
    time.sleep(0.5)  # nothing announces that nothing happens
    assert wakeups() == before


def test_outside_of_all_agents_it_offers_nothing_when_it_is_told_so(instance: Path) -> None:
    with Client("--agent-only") as client:
        client.ask(1, "initialize", **INITIALIZE)
        assert client.read()["result"]["protocolVersion"] == "2025-11-25"
        client.notify("notifications/initialized")
        client.ask(2, "tools/list")
        assert client.read()["result"] == {"tools": []}
        client.ask(3, "tools/call", name="send_message")
        assert "there is no agent here" in client.read()["error"]["message"]
        client.send(b"{nonsense")
        assert client.read()["error"]["code"] == -32700
        assert client.end() == 0


def test_inside_of_an_agent_it_is_the_real_one(server: Server) -> None:
    with Client("--agent-only", CSP_AGENT="alice") as client:
        greeted(client, server)
        assert client.end() == 0


def test_a_terminal_interrupt_ends_it(client: Client, server: Server) -> None:
    greeted(client, server)
    client.process.send_signal(signal.SIGINT)
    assert client.process.wait(PATIENCE_SEC) == 130


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_come_out_whole_however_they_were_cut(size: int) -> None:
    data = b"one\n\n" + b"x" * 20 + b"\n" + b"y" * 21 + b"\n" + b"last\n"
    lines = Lines(20)
    found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]
    assert found == [b"one", b"", b"x" * 20, 21, b"last"]


@pytest.mark.parametrize("runtime", ["/run/user/1000", "/tmp/with blank", "/tmp/ü"])
def test_the_socket_is_the_one_that_cspd_listens_on(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CSP_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert control_socket(None) == str(Paths.from_environ(os.environ).control_socket)
