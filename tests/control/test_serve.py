"""Connections to cspd.sock over a real socket: what a bug of cspd costs there."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from cspd.control import serve
from cspd.control.call import Services
from cspd.control.methods import METHODS
from cspd.control.serve import serve_control
from cspd.listening import listening_socket
from cspd.transport import LineStream, connect

pytestmark = pytest.mark.real


@asynccontextmanager
async def control(path: Path) -> AsyncIterator[None]:
    services = SimpleNamespace(
        paths=SimpleNamespace(control_socket=path),
        hub=SimpleNamespace(links={}),
        manager=SimpleNamespace(units={}, keeper=SimpleNamespace(pid=os.getpid() + 1)),
        guests=SimpleNamespace(members={}),
        find=lambda name: None,
    )
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, listening_socket(path), cast(Services, services))
            yield
            nursery.cancel_scope.cancel()


async def ask(lines: LineStream, method: str) -> dict[str, Any]:
    """The answer, or nothing when the connection is closed."""
    heard = b""
    try:
        await lines.send(b'{"jsonrpc": "2.0", "id": 1, "method": "%b", "params": {"protocol": 1}}\n' % method.encode())
        while data := await lines.stream.receive_some():
            heard += data
            if heard.endswith(b"\n"):
                return dict(json.loads(heard))
    except trio.BrokenResourceError:
        pass
    return {}


@pytest.mark.parametrize("later", [False, True], ids=["at once", "while it is awaited"])
async def test_a_bug_in_a_method_costs_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracebacks: list[str], later: bool
) -> None:
    def fails(*_: object) -> Any:
        async def answer() -> None:
            raise KeyError("x")

        if later:
            return answer()
        raise KeyError("x")

    monkeypatch.setitem(METHODS, "agent.list", fails)  # type: ignore[arg-type]
    async with control(tmp_path / "c.sock"):
        lines = await connect(tmp_path / "c.sock")
        failure = (await ask(lines, "agent.list"))["error"]
        assert failure["data"]["code"] == "internal"
        assert failure["message"] == "agent.list: failed in cspd: KeyError"
        assert (await ask(lines, "hello"))["result"]["you"] == "human"
        await lines.aclose()
    assert "agent.list: failed in cspd" in tracebacks.pop()


async def test_a_bug_beside_the_methods_costs_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracebacks: list[str]
) -> None:
    async with control(tmp_path / "c.sock"):
        with monkeypatch.context() as broken:
            broken.delattr(serve, "Who")
            lines = await connect(tmp_path / "c.sock")
            assert await ask(lines, "hello") == {}
            await lines.aclose()
        lines = await connect(tmp_path / "c.sock")
        assert (await ask(lines, "hello"))["result"]["you"] == "human"
        await lines.aclose()
    assert "a connection is closed" in tracebacks.pop()
