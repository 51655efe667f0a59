"""What `cspctl run` has running: the forked agent, its descriptors, and the way to cspd; handed over at a reexec.

From it, and from the black box, comes the session. Who waits for the agent's end is `foreground`.
"""

import socket
from collections.abc import Mapping
from typing import Any

import attrs

from cspd.paths import Paths
from cspd.sidecar.gateway import GatewayDoor
from cspd.sidecar.guest import GuestDoor
from cspd.sidecar.home import Home, Listeners
from cspd.sidecar.main import build_session
from cspd.sidecar.session import Session
from cspd.sidecar.spool import Spool


@attrs.define
class Running:
    """`spec` as the keeper gives it to the sidecar of a unit; `control`: to the terminal's side."""

    home: Home
    door: GuestDoor | GatewayDoor
    spec: dict[str, Any]
    master: int
    listeners: Listeners
    control: socket.socket
    notices: list[str] = attrs.Factory(list)
    exited: dict[str, Any] | None = None  # how it has ended

    @property
    def pid(self) -> int:
        return int(self.spec["pid"])

    def session(self) -> Session:
        home = self.home
        box, spool = home.black_box, Spool(home.spool)
        session = build_session(self.spec, self.master, home.paths, black_box=box, door=self.door, spool=spool)
        notices, self.notices = self.notices, []
        for notice in notices:
            session.terminal.feed(f"[{notice}]\r\n".encode())
        return session

    def to_plain(self) -> dict[str, Any]:
        """For the version after us, and `kept`, the descriptors that it needs. Only with a GuestDoor."""
        assert isinstance(self.door, GuestDoor)
        plain = {
            "home": self.home.name,
            "lock": self.home.lock,
            "master": self.master,
            "listener": self.listeners.attach.fileno(),
            "control": self.control.fileno(),
        }
        kept = [fd for fd in plain.values() if isinstance(fd, int)]
        return {**plain, "kept": kept, "door": self.door.to_plain(), "spec": self.spec, "exited": self.exited}

    @classmethod
    def from_plain(
        cls, plain: Mapping[str, Any], paths: Paths, listener: socket.socket, control: socket.socket
    ) -> "Running":
        """Unknown fields are a newer version's."""
        listener.setblocking(False)
        return cls(
            Home(plain["home"], paths, plain["lock"]),
            GuestDoor.from_plain(plain["door"]),
            plain["spec"],
            plain["master"],
            Listeners(listener),
            control,
            exited=plain["exited"],
        )
