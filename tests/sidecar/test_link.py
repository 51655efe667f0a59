"""The link: what was not answered is said again, with the same id; what was refused is not."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from cspd.errors import CspError
from cspd.sidecar.link import Link, hello
from cspd.sidecar.spool import Spool
from cspd.transport import RpcPeer
from cspd.wire import rpc
from cspd.wire.frames import Oversize
from cspd.wire.version import PROTOCOL

pytestmark = pytest.mark.virtual_time


@attrs.define(eq=False)
class Wire:
    """A connection to a cspd that is a function: of None instead of an answer the connection dies.

    `told`: what it says by itself before it answers for the first time.
    """

    answer: Callable[[rpc.Request], Any]
    told: list[bytes] = attrs.Factory(list)
    _send: trio.MemorySendChannel[bytes] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[bytes] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](100)

    async def lines(self) -> AsyncGenerator[bytes | Oversize, None]:
        async for line in self._receive:
            yield line

    def send_nowait(self, data: bytes) -> bool:
        return False

    async def send(self, data: bytes) -> None:
        request = rpc.decode(data)
        if isinstance(request, rpc.Response):
            return  # to what we have asked
        while self.told:
            await self._send.send(self.told.pop(0))
        try:
            value = self.answer(request)
        except CspError as exc:
            await self._send.send(rpc.error(request.id, exc))
            return
        if value is None:
            self._send.close()
        else:
            await self._send.send(rpc.result(request.id, value))

    async def aclose(self) -> None:
        self._send.close()
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class Cspd:
    """Answers at the times that its `answers` say; everything that it heard is in `heard`."""

    answers: list[object]
    retry_max_sec: float = 1.0
    connects: list[float] = attrs.Factory(list)
    heard: list[dict[str, Any]] = attrs.Factory(list)
    away: int = 0
    told: list[bytes] = attrs.Factory(list)
    greetings: list[object] = attrs.Factory(lambda: [{"protocol": PROTOCOL, "settings": {}}])  # the last for good
    done: trio.Event = attrs.Factory(trio.Event)  # the last answer was given

    async def connect(self) -> Wire:
        await trio.lowlevel.checkpoint()
        self.connects.append(trio.current_time())
        if self.away:
            self.away -= 1
            raise ConnectionRefusedError("nobody is there")
        return Wire(self._answer, self.told)

    async def enter(self, peer: RpcPeer, introduction: dict[str, Any]) -> dict[str, Any]:
        return await hello(peer, introduction)

    def _answer(self, request: rpc.Request) -> object:
        if request.method == "sidecar.hello":
            return self.greetings.pop(0) if len(self.greetings) > 1 else self.greetings[0]
        self.heard.append(request.params)
        outcome = self.answers.pop(0)
        if not self.answers:
            self.done.set()
        if isinstance(outcome, CspError):
            raise outcome
        return outcome


@attrs.define(eq=False)
class Session:
    """`known`: what cspd said last of each thing."""

    known: dict[str, Any] = attrs.Factory(dict)

    def introduction(self) -> dict[str, Any]:
        return {"name": "alice"}

    def welcomed(self, answer: dict[str, Any]) -> None:
        self.known.pop("sidecar.settings", None)
        self.known["sidecar.settings"] = answer["settings"]

    def asked(self, method: str, params: dict[str, Any]) -> Any:
        if method == "sidecar.unheard_of":
            raise CspError("no-such-method", f"method: {method!r}: not known")
        self.known[method] = params
        return {}


async def say_all(cspd: Cspd, *params: dict[str, Any], session: Session | None = None) -> Link:
    """A link whose spool is empty again."""
    link = Link(cspd, session or Session(), Spool())
    for each in params:
        link.report("sidecar.said", each)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.keep)
        await cspd.done.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not link.spool
    return link


async def test_what_was_not_answered_is_said_again_with_the_same_id(autojump_clock: trio.testing.MockClock) -> None:
    cspd = Cspd([{}, None, {}, {}])
    await say_all(cspd, {"said_id": "a"}, {"said_id": "b"}, {"said_id": "c"})
    assert [each["said_id"] for each in cspd.heard] == ["a", "b", "b", "c"]


async def test_what_is_refused_is_not_said_again(autojump_clock: trio.testing.MockClock) -> None:
    cspd = Cspd([CspError("no-such-agent", "agent: 'x'"), CspError("duplicate-message", "stored before"), {}])
    await say_all(cspd, {"said_id": "a"}, {"said_id": "b"}, {"said_id": "c"})
    assert [each["said_id"] for each in cspd.heard] == ["a", "b", "c"]


async def test_a_full_disk_over_there_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    cspd = Cspd([CspError("storage", "disk full"), CspError("busy", "too much"), {}])
    await say_all(cspd, {"said_id": "a"})
    assert [each["said_id"] for each in cspd.heard] == ["a", "a", "a"]


async def test_the_pauses_between_attempts_grow_to_their_limit_and_are_never_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cspd = Cspd([{}], away=40)
    await say_all(cspd, {"said_id": "a"})
    pauses = [later - before for before, later in zip(cspd.connects, cspd.connects[1:], strict=False)]
    assert all(0.5 <= pause <= 1.0 for pause in pauses[10:])
    assert len({round(pause, 6) for pause in pauses[10:]}) > 20


async def test_asking_needs_somebody_there(autojump_clock: trio.testing.MockClock) -> None:
    link = Link(Cspd([], away=1000), Session(), Spool())
    with pytest.raises(CspError, match="not connected"):
        await link.ask("agent.list", {})


@pytest.mark.parametrize("method", ["sidecar.settings", "sidecar.pause", "sidecar.deliver"])
async def test_what_overtakes_the_welcome_is_newer_than_it(autojump_clock: trio.testing.MockClock, method: str) -> None:
    """A reload while the sidecar introduces itself: cspd has made its welcome before."""
    cspd, session = Cspd([{}], told=[rpc.request(method, {"new": True})]), Session()
    await say_all(cspd, {"said_id": "a"}, session=session)
    assert list(session.known)[-1] == method, "it is taken last"
    assert session.known[method] == {"new": True}


async def test_who_is_answered_may_rely_on_what_the_welcome_says(autojump_clock: trio.testing.MockClock) -> None:
    """A person who sees the agent's screen after a reload knows that the settings count."""
    cspd, session = Cspd([{}], told=[rpc.request("sidecar.screen", {}, 9)]), Session()
    await say_all(cspd, {"said_id": "a"}, session=session)
    assert list(session.known) == ["sidecar.settings", "sidecar.screen"]


async def test_what_came_early_on_a_connection_that_died_is_older_than_the_next_welcome(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cspd, session = Cspd([{}], told=[rpc.request("sidecar.settings", {"share_input": True})]), Session()
    cspd.greetings = [None, {"protocol": PROTOCOL, "settings": {}}]
    await say_all(cspd, {"said_id": "a"}, session=session)
    assert len(cspd.connects) == 2
    assert session.known == {"sidecar.settings": {}}


async def test_what_is_said_once_is_heard_also_before_a_welcome_that_never_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cspd, session = Cspd([{}], told=[rpc.request("sidecar.hook", {"event": "Stop"})]), Session()
    cspd.greetings = [None, {"protocol": PROTOCOL, "settings": {}}]
    await say_all(cspd, {"said_id": "a"}, session=session)
    assert session.known["sidecar.hook"] == {"event": "Stop"}


async def test_a_later_cspd_may_tell_what_is_not_understood_before_its_welcome(
    autojump_clock: trio.testing.MockClock,
) -> None:
    cspd = Cspd([{}], told=[rpc.request("sidecar.unheard_of", {})])
    await say_all(cspd, {"said_id": "a"})
    assert len(cspd.connects) == 1
