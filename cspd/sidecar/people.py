"""The people at attached terminals: who may attach, who leads, and on what way their keys go to the agent.

The leader typed last: its window's size counts, and its terminal answers the program's queries (the emulator, when
there is none or it does not keep up). What the keys mean for the messages that are typed is the arbiter's; the sockets
are `clients`'s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from cspd.errors import CspError
from cspd.sidecar import orders, pty
from cspd.sidecar.arbiter import Arbiter
from cspd.sidecar.attach import Pace
from cspd.sidecar.blackbox import BlackBox
from cspd.sidecar.client import Client
from cspd.sidecar.clients import Clients
from cspd.sidecar.emulation import Emulation
from cspd.sidecar.keystrokes import Kind as Key
from cspd.sidecar.link import Link
from cspd.sidecar.recorder import Recorder
from cspd.sidecar.repaint import repaint
from cspd.sidecar.view import View
from cspd.sidecar.voice import Voice
from cspd.transport import ancestry_of, peer_of

# Nobody sees it then, and in less of it programs draw what they are given so that a typed message is not recognised.
COLUMNS_MIN, ROWS_MIN = 40, 10


class Session(Protocol):
    """Whose terminal they are attached to."""

    name: str
    pid: int
    incarnation: int
    master: int
    control_socket: Path
    arbiter: Arbiter
    box: BlackBox
    clients: Clients
    emulation: Emulation
    link: Link
    recorder: Recorder
    voice: Voice
    writer: pty.Writer

    def view(self) -> View | None: ...
    def look(self) -> None: ...
    def look_soon(self) -> None: ...
    def hear(self) -> None: ...
    def handle(self, fact: orders.Fact) -> None: ...
    def perform(self, commands: Sequence[orders.Command]) -> None: ...


@attrs.define
class People:
    session: Session
    leader: Client | None = None
    _passed: bytearray = attrs.Factory(bytearray)  # keys that have gone on and that nobody was told of

    @property
    def answer(self) -> bool:
        """Does somebody's terminal get the program's queries now? One that fell behind gets a picture without them."""
        return self.leader is not None and self.leader.shown.pace is not Pace.BEHIND

    def greeting(self) -> dict[str, Any]:
        return {"agent": self.session.name, "incarnation": self.session.incarnation, "pid": self.session.pid}

    async def admit(self, client: Client) -> None:
        """Raises CspError("inside"): a terminal that shows itself would paint for ever. cspd knows round-about ways."""
        inside = ancestry_of(peer_of(client.sock), self.session.control_socket)
        if any(process.pid == self.session.pid or process.session == self.session.pid for process in inside):
            raise CspError("inside", f"agent: {self.session.name}: this is its own terminal", "attach from another one")
        client.inside = next((process.agent for process in inside if process.agent), "")
        if client.inside:
            await self.session.link.ask_leave("sidecar.show", {"inside": client.inside})

    def attach(self, client: Client) -> None:
        if not client.read_only:
            self._lead(client)
        client.paint(repaint(self.session.emulation.terminal, scrollback=client.scrollback))
        self.count()

    def detached(self, client: Client) -> None:
        self.note_passed()
        if client.keystrokes.in_paste:  # it left in the middle of one: nobody else may wait for its end
            self.session.handle(orders.HumanTyped(trio.current_time(), (), in_paste=False))
        if self.leader is client:
            writers = [each for each in self.session.clients.members if not each.read_only]
            self.leader = None
            if writers:
                self._lead(writers[0])
        if not self.session.clients.members:
            terminal = self.session.emulation.terminal
            self._resize(max(terminal.columns, COLUMNS_MIN), max(terminal.rows, ROWS_MIN))
        self.count()

    def count(self) -> None:
        attached = len(self.session.clients.members)
        self.session.link.mention("sidecar.attached", {"count": attached, "inside": self.shown_in()})

    def shown_in(self) -> list[str]:
        """Agents whose terminals show this one."""
        return sorted({client.inside for client in self.session.clients.members} - {""})

    def _lead(self, client: Client) -> None:
        self.note_passed()
        self.leader = client
        self.resized(client)

    def resized(self, client: Client) -> None:
        if client is self.leader and self._resize(client.columns, client.rows):
            for other in self.session.clients.members:
                if other is not client and other.attached:
                    other.outdated()

    def _resize(self, columns: int, rows: int) -> bool:
        """False: it is of this size."""
        terminal = self.session.emulation.terminal
        if (columns, rows) == (terminal.columns, terminal.rows):
            return False
        terminal.resize(columns, rows)
        self.session.recorder.resized()
        self.session.voice.ear.rows = rows
        pty.set_size(self.session.master, rows, columns)
        self.session.look_soon()
        return True

    def typed(self, client: Client, data: bytes) -> None:
        if client is self.leader and self._further_key(client, data):
            return self._pass_on(data)
        now = trio.current_time()
        self.note_passed()
        pieces = tuple(client.keystrokes.feed(data, now))
        submits = any(piece.kind is Key.ENTER for piece in pieces)
        if client is not self.leader:
            if not any(piece.typed for piece in pieces):
                return  # its terminal answers a query that the leader's answers too
            self._lead(client)
        if submits:
            self.session.look()  # what it is doing now decides whether the line is for the room
        view = self.session.view() if submits else None
        self.session.handle(orders.HumanTyped(now, pieces, view, in_paste=client.keystrokes.in_paste))

    def repaint(self, client: Client) -> bytes:
        return repaint(self.session.emulation.terminal, scrollback=False)

    def _further_key(self, client: Client, data: bytes) -> bool:
        """Of a draft that is noted already. A message that is typed holds it back."""
        return self.session.arbiter.lets_pass and self.session.box.draft and client.keystrokes.plain(data)

    def _pass_on(self, data: bytes) -> None:
        """The next key of a draft: what it means can wait for the next look, which counts many of them at once."""
        self.session.writer.write(data)
        self.session.recorder.input(data)
        if not self._passed:
            self.session.hear()  # what came before it
            self.session.look_soon()
        self._passed += data

    def note_passed(self) -> None:
        """Before anything else that the arbiter or the ear is told."""
        if self._passed and self.leader is not None:
            data, self._passed = bytes(self._passed), bytearray()
            self.session.voice.ear.wrote(data.decode())
            now = trio.current_time()
            pieces = tuple(self.leader.keystrokes.feed(data, now))
            self.session.perform(self.session.arbiter.handle(orders.HumanTyped(now, pieces, passed=True)))

    def input_has_room(self) -> bool:
        return self.session.writer.has_room

    async def wait_input_room(self) -> None:
        await self.session.writer.wait_room()
