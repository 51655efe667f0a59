"""cspd's side of the keeper's socket."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from cspd.keeper.client import KeeperClient
from cspd.listening import listening_socket
from cspd.paths import Paths
from cspd.wire.version import PROTOCOL

pytestmark = pytest.mark.real


async def test_what_happens_right_after_the_list_comes_after_it(tmp_path: Path) -> None:
    """Else the list, which is older, would have the last word of an agent that a sidecar has just brought."""
    paths = Paths(tmp_path, tmp_path, tmp_path)
    heard: list[Any] = []
    client = KeeperClient(paths, starts_one=False)
    client.on_list = lambda told: heard.append(told["agents"])
    client.on_event = lambda event: heard.append(event["event"])
    listener = trio.socket.from_stdlib_socket(listening_socket(paths.keeper_socket))

    async def keeper() -> None:
        sock, _ = await listener.accept()
        request = json.loads(await sock.recv(65536))
        about = {"protocol": PROTOCOL, "pid": 1, "version": "0", "by_cspd": False, "agents": []}
        lines = [{"id": request["id"], "ok": about}, {"event": "agent-adopted"}]
        await sock.send(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        with sock:
            await trio.sleep_forever()

    with trio.fail_after(60), listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper)
            await nursery.start(client.serve)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert client._stream is not None
        await client._stream.aclose()
    assert heard == [[], "agent-adopted"]
