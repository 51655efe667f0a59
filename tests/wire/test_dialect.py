"""Old and new versions together: what the first dialect said, recorded, and unknown fields everywhere.

`dialect1/` holds what a sidecar said to cspd, cspd to a sidecar, and cspd to the keeper. It is never recorded anew.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import attrs
import pytest
import trio
from real.instance import eventually

from cspd.control.call import Caller, Services
from cspd.control.methods import dispatch
from cspd.errors import CspError
from cspd.gateway.guests import Guests
from cspd.gateway.history import open_history
from cspd.gateway.hub import Agent, Hub
from cspd.gateway.identity import Identity
from cspd.listening import listening_socket
from cspd.paths import Paths
from cspd.sidecar import pty
from cspd.transport import RpcPeer
from cspd.unit.manager import Manager
from cspd.wire import rpc
from cspd.wire.version import OLDEST, check_protocol

pytestmark = pytest.mark.real

DIALECT = Path(__file__).parent / "dialect1"
SETTINGS = {"room": "lobby", "profile": "shell", "template": "{content}", "share_input": True, "share_keywords": True}
FUTURE = {"a_field_of_the_future": {"deeply": ["nested"]}}


def recorded(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DIALECT / f"{name}.jsonl").read_text().splitlines()]


@attrs.define(eq=False)
class Unit:
    """As much of one as a sidecar's calls touch."""

    sidecar_pid: int
    name: str = "a"

    async def wait_until(self, condition: Any) -> None:
        assert condition()

    def notify(self) -> None:
        pass


@attrs.define
class Units:
    unit: Unit

    def get(self, name: str) -> Unit:
        assert name == self.unit.name
        return self.unit


class NoGuests:
    members: Mapping[str, Any] = MappingProxyType({})


class Deaf:
    """The sidecar's end of a connection, of which only the requests matter."""

    async def notify(self, method: str, params: dict[str, Any]) -> None:
        pass


@pytest.mark.parametrize("extra", [{}, FUTURE], ids=["as it was", "with unknown fields"])
async def test_cspd_understands_an_old_sidecar(tmp_path: Path, extra: dict[str, Any]) -> None:
    hub = Hub()
    async with open_history(tmp_path / "csp" / "history.db", on_commit=hub.committed) as history:
        await hub.start(history)
        await hub.add_agent(Agent("a", "lobby", 1000.0, SETTINGS))
        posted = await hub.post("human", "a", "echo hello")
        paths, nothing = Paths(tmp_path, tmp_path, tmp_path), cast(Any, None)
        guests = cast(Guests, NoGuests())
        services = Services(paths, hub, cast(Manager, Units(Unit(77))), guests, nothing, nothing, 0)
        async with trio.open_nursery() as nursery:
            caller = Caller(Identity(), 77, cast(RpcPeer, Deaf()), nursery)
            for line in recorded("sidecar"):
                params = {**line["params"], **extra}
                if "message_id" in params:
                    params["message_id"] = posted["message_id"]
                answer = dispatch(services, caller, rpc.Request(line["method"], params, line["id"]))
                if answer is not None:
                    answer = await answer
                if line["method"] == "sidecar.hello":
                    assert {"protocol", "settings", "paused"} <= set(answer)
            nursery.cancel_scope.cancel()
        deliveries = (await history.message(posted["message_id"]))[1]
        assert deliveries["a"].step == "turn_ended"
        assert hub.last_lines["a"][-2:] == ["hello", "$"]


def listens(path: Path) -> bool:
    """The file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Path]:
    """The socket of a living keeper."""
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-P", "-m", "cspd.keeper.main", "--by-cspd"], env=env)
    path = tmp_path / "csp" / "keeper.sock"
    try:
        yield eventually(lambda: path if listens(path) else None, "the keeper listens")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


@pytest.mark.parametrize("extra", [{}, FUTURE], ids=["as it was", "with unknown fields"])
def test_the_keeper_understands_an_old_cspd(keeper: Path, extra: dict[str, Any]) -> None:
    here = {"runtime": str(keeper.parent), "config": str(keeper.parent / "c"), "state": str(keeper.parent / "s")}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(40)
        sock.connect(str(keeper))
        said = sock.makefile("r")
        answers: dict[int, Any] = {}
        for line in recorded("keeper"):
            if "spec" in line:
                line["spec"] |= here
            sock.sendall(json.dumps({**line, **extra}).encode() + b"\n")
            while line.get("id") is not None and line["id"] not in answers:
                message = json.loads(said.readline())
                assert "error" not in message
                answers |= {message["id"]: message["ok"]} if message.get("id") is not None else {}
        said.close()
    assert {"protocol", "pid", "version", "by_cspd", "agents", "notes"} <= set(answers[1])
    assert {"name", "incarnation", "pid", "started_ts", "exited", "sidecar_pid"} <= set(answers[2])


def bash_on_a_terminal() -> tuple[int, "subprocess.Popen[bytes]"]:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    pty.set_size(master, 40, 120)
    program = subprocess.Popen(["setsid", "-c", "bash", "--norc"], stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    return master, program


def start_sidecar(spec: dict[str, Any], fds: dict[str, int]) -> "subprocess.Popen[bytes]":
    """As the keeper's fork would be."""
    code = "import json, sys; from cspd.sidecar.main import run_sidecar; run_sidecar(*map(json.loads, sys.argv[1:]))"
    words = [json.dumps(spec), json.dumps(fds)]
    return subprocess.Popen([sys.executable, "-c", code, *words], pass_fds=list(fds.values()))


@pytest.mark.parametrize("extra", [{}, FUTURE], ids=["as it was", "with unknown fields"])
async def test_a_sidecar_understands_an_old_cspd(tmp_path: Path, extra: dict[str, Any]) -> None:
    """A real sidecar on a real terminal, and a cspd that says only what the old one said."""
    answer, *told = recorded("cspd")
    heard: list[dict[str, Any]] = []
    done = trio.Event()
    paths = Paths(tmp_path, tmp_path, tmp_path)
    paths.agents_dir.mkdir()
    master, program = bash_on_a_terminal()

    async def old_cspd(stream: trio.SocketStream) -> None:
        held = b""
        while data := await stream.receive_some(65536):
            *lines, held = (held + data).split(b"\n")
            for message in map(json.loads, lines):
                if "method" not in message:
                    continue
                heard.append(message)
                if message["method"] != "sidecar.hello":
                    await stream.send_all(rpc.result(message["id"], {}))
                    if message["params"].get("step") == "turn_ended":
                        done.set()
                    continue
                await stream.send_all(rpc.encode({**answer, "id": message["id"]}))
                for line in told:
                    params = {**line["params"], **extra}
                    params |= {"expires_ts": 4e9} if "expires_ts" in params else {}
                    await stream.send_all(rpc.encode({**line, "params": params}))

    spec = {"name": "a", "incarnation": 1, "pid": program.pid, "exited": None, "scrollback_lines": 100}
    spec |= {"runtime": str(tmp_path), "config": str(tmp_path), "state": str(tmp_path), "settings": SETTINGS}
    ours, theirs = socket.socketpair()
    listener = listening_socket(paths.agent_socket("a"))
    listener.setblocking(False)
    fds = {"master": master, "pidfd": os.pidfd_open(program.pid)}
    fds |= {"listener": listener.fileno(), "lifeline": theirs.fileno()}
    control = trio.socket.from_stdlib_socket(listening_socket(paths.control_socket))
    with ours, theirs, listener, control, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, old_cspd, [trio.SocketListener(control)])
            sidecar = start_sidecar(spec, fds)
            await done.wait()
            nursery.cancel_scope.cancel()
    for process in (sidecar, program):
        process.kill()
        process.wait()
    for fd in (master, fds["pidfd"]):
        os.close(fd)
    steps = [message["params"]["step"] for message in heard if message["method"] == "sidecar.step"]
    assert [step for step in steps if step != "held"] == ["typing", "echoed", "submitted", "turn_started", "turn_ended"]


@pytest.mark.parametrize("theirs", [OLDEST - 1, 0, -1, "1", None, True])
def test_a_version_that_is_too_old_is_told_which_ones_are_not(theirs: object) -> None:
    with pytest.raises(CspError) as caught:
        check_protocol(theirs, "sidecar")
    assert str(OLDEST) in caught.value.sentence
    assert "same version" in caught.value.hint
