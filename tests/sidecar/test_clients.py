"""What the clients do with a lent terminal that nothing but a race shows; the rest is in real/test_attach_lent.py."""

import json
import os
import socket
from typing import Any, cast

import attrs
import pytest
import trio

from cspd.sidecar.client import Client
from cspd.sidecar.clients import Clients, Host
from cspd.sidecar.pump import Pump
from cspd.wire.detachkey import KeyWatch, Verdict
from cspd.wire.frames import FrameSplitter, Kind, frame
from cspd.wire.version import PROTOCOL

pytestmark = pytest.mark.real


@attrs.define
class Agent:
    """Hears what is typed."""

    keys: bytes = b""

    def typed(self, client: Client, data: bytes) -> None:
        self.keys += data

    def input_has_room(self) -> bool:
        return True


class Silent(Agent):
    """Shows nothing but its picture."""

    def greeting(self) -> dict[str, Any]:
        return {}

    async def admit(self, client: Client) -> None:
        pass

    def attach(self, client: Client) -> None:
        client.paint(b"picture")

    def detached(self, client: Client) -> None:
        pass

    def repaint(self, client: Client) -> bytes:
        return b""

    async def wait_input_room(self) -> None:
        pass


async def test_what_was_typed_at_once_with_the_greeting_is_told_to_be_taken() -> None:
    pump, (ours, theirs) = Pump(), socket.socketpair()
    ours.setblocking(False)
    clients = Clients(cast(Host, Silent()), pump)
    hello = json.dumps({"protocol": PROTOCOL, "rows": 24, "columns": 80, "taken": True}).encode()
    theirs.send(frame(Kind.HELLO, hello) + frame(Kind.INPUT, b"x"))
    frames, kinds = FrameSplitter(), list[Kind]()
    with theirs, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(clients._serve_client, Client(ours, pump, lambda _client: b""))
            while Kind.TAKEN not in kinds:
                await trio.lowlevel.wait_readable(theirs)
                kinds += [kind for kind, _ in frames.feed(theirs.recv(65536))]
            nursery.cancel_scope.cancel()
    pump.close()
    assert kinds == [Kind.HELLO, Kind.REPAINT, Kind.TAKEN]


class ClosedMeanwhile(KeyWatch):
    """The person's window is closed just when their keys were read."""

    def __init__(self, master: int) -> None:
        super().__init__(None)
        self.master = master

    def judge(self, chunk: bytes) -> Verdict:
        os.close(self.master)
        return super().judge(chunk)


def test_keys_count_although_their_terminal_is_closed_just_behind_them() -> None:
    agent, (master, slave) = Agent(), os.openpty()
    os.write(master, b"exit\r")
    ours, theirs = socket.socketpair()
    pump = Pump()
    with theirs:
        client = Client(ours, pump, lambda _client: b"")
        client.lend(slave)
        client.watch = ClosedMeanwhile(master)
        Clients(cast(Host, agent), pump)._typed(client, slave)
        client.close()
    pump.close()
    assert agent.keys == b"exit\n"
