"""What the clients do with a lent terminal that nothing but a race shows; the rest is in tests/real/test_attach.py."""

import os
import socket
from typing import cast

import attrs
import pytest

from cspd.sidecar.clients import Client, Clients, Host
from cspd.sidecar.pump import Pump
from cspd.wire.detachkey import KeyWatch, Verdict

pytestmark = pytest.mark.real


@attrs.define
class Agent:
    """Hears what is typed."""

    keys: bytes = b""

    def typed(self, client: Client, data: bytes) -> None:
        self.keys += data

    def input_has_room(self) -> bool:
        return True


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
