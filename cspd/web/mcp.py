"""`POST /mcp`: one request of an MCP client, answered by JSON, or by a stream of events once there is more to tell.

That is its transport "streamable HTTP"; what the methods do is `control.mcp`'s. A client that hangs up has cancelled.
"""

from collections.abc import Mapping
from typing import Any

import attrs
import trio

from cspd.web.exchange import EVENTS, Answer, Exchange
from cspd.web.requests import Ask, OneShot, answer_to, read_call
from cspd.web.sessions import new_session
from cspd.wire import rpc

SESSION = "mcp-session-id"
COMMENT_SEC = 15.0  # what takes longer is kept alive, for proxies and for clients that lose patience


@attrs.define(eq=False)
class Told(OneShot):
    """The client of one request: the first thing that it is told makes the answer a stream, if it takes one."""

    exchange: Exchange
    streams: bool
    begun: bool = False
    turn: trio.Lock = attrs.Factory(trio.Lock)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        await self._tell(as_event(rpc.request(method, params)))

    async def keep_alive(self) -> None:
        while True:
            await trio.sleep(COMMENT_SEC)
            await self._tell(b":\n\n")

    async def _tell(self, data: bytes) -> None:
        if not self.streams:
            return
        async with self.turn:
            begun, self.begun, whole = self.begun, True, False
            try:
                if not begun:
                    await self.exchange.begin(EVENTS)
                await self.exchange.piece(data)
                whole = True
            finally:
                if not whole:  # what comes behind half an event could not be read
                    await trio.aclose_forcefully(self.exchange.stream)

    async def finish(self, answer: Answer) -> Answer:
        if answer.body:
            await self._tell(as_event(answer.body))
        await self.exchange.end()
        return attrs.evolve(answer, sent=True)


def as_event(line: bytes) -> bytes:
    return b"event: message\ndata: " + line + b"\n"


async def mcp(ask: Ask) -> Answer:
    request = read_call(ask)
    if isinstance(request, Answer):
        return request
    told = Told(ask.exchange, ask.head.wants(EVENTS))
    waiting = ask.sessions.waiting(ask.identity.name, ask.head.headers.get(SESSION))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(told.keep_alive)
        answer = await answer_to(ask, request, told, waiting)
        async with told.turn:  # not in the middle of a word
            nursery.cancel_scope.cancel()
    if told.begun:
        return await told.finish(answer)
    if request.method == "initialize":
        return attrs.evolve(answer, headers=((SESSION, new_session()),))
    return answer
