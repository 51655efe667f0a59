"""One connection of the listener, from its accept to its end: whose it is, and request after request.

A peer that vanishes, hangs or sends nonsense costs only its own connection. What is answered is decided in `requests`
and `stream`.
"""

import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial

import attrs
import trio

from cspd.config import GatewayConfig
from cspd.control.call import Caller, Services
from cspd.control.serve import converse
from cspd.errors import CspError
from cspd.gateway.identity import Identity
from cspd.transport import RpcPeer
from cspd.web.crowd import Crowd
from cspd.web.exchange import EVENTS, Answer, Exchange, too_late
from cspd.web.frames import Code
from cspd.web.head import Head, Refused, check_names
from cspd.web.metrics import Counts
from cspd.web.requests import STATUS, Ask, number, refused_as
from cspd.web.routes import Request, Stream, find
from cspd.web.sessions import Sessions
from cspd.web.stream import Subscription, farewell, to_sse, to_websocket
from cspd.web.websocket import CLOSE_SEC, WebSocket, handshake

log = logging.getLogger("cspd.web")

GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


@attrs.frozen
class Site:
    """What all connections share."""

    services: Services
    config: GatewayConfig
    counts: Counts
    crowd: Crowd
    sessions: Sessions = attrs.Factory(Sessions)


@attrs.define(eq=False)
class Connection:
    """`why` is told to a WebSocket when the connection is cancelled."""

    site: Site
    stream: trio.abc.Stream
    address: str  # of ours that it came to; "" for a Unix socket
    late: bool = False  # its first head has not come in time
    why: tuple[int, str] = (Code.GOING_AWAY, "cspd is ending")
    _scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _tokens: ExitStack = attrs.Factory(ExitStack)
    _shown: set[str] = attrs.Factory(set)

    def cancel(self) -> None:
        self._scope.cancel()

    def revoked(self) -> None:
        self.why = (Code.REFUSED, "the token was revoked")
        self._scope.cancel()

    async def serve(self) -> None:
        """Until either side ends it; closes the stream."""
        crowd = self.site.crowd
        exchange = Exchange(self.stream)
        try:
            with self._scope, self._tokens:
                if crowd.enter(self):
                    await self._requests(exchange)
                else:
                    self.site.counts.turned_away += 1
                    full = CspError("busy", f"gateway: {crowd.most} connections: there is no room", "try later")
                    await exchange.reply(refused_as(full), last=True)
        except* GONE:
            pass  # the peer vanished, which ends a connection as well as a close does
        except* Exception:  # a bug: it costs this connection, and not the supervision of all agents
            log.exception("a connection is closed: it failed in cspd")
        finally:
            crowd.leave(self)
            await trio.aclose_forcefully(self.stream)

    async def _requests(self, exchange: Exchange) -> None:
        try:
            if self.late:
                raise too_late()
            while (head := await exchange.next_head()) is not None:
                if not await self._request(exchange, head):
                    return
        except Refused as refused:
            self.site.counts.requests[refused.status] += 1
            await exchange.refuse(refused)

    async def _request(self, exchange: Exchange, head: Head) -> bool:
        """Answer one; -> another may follow on this connection."""
        if self.address:
            check_names(head, self.address, self.site.config.allowed_hosts)
        exchange.check_length(head)
        match find(head):
            case Request(handler, open, waits):
                identity = Identity() if open else self._identify(head)
                ask = self._ask(identity, head, await exchange.body(), exchange)
                answer = await self._answered(exchange, partial(handler, ask), waits)
                if answer is None:
                    return False
                self.site.counts.requests[answer.status] += 1
                if not answer.sent:
                    await exchange.reply(answer)
                return exchange.usable
            case Stream(events):
                await self._stream(exchange, head, self._identify(head), events)
                return False

    def _ask(self, identity: Identity, head: Head, body: bytes, exchange: Exchange) -> Ask:
        site = self.site
        return Ask(site.services, identity, head, body, exchange, site.sessions, site.counts, site.crowd.count)

    async def _answered(self, exchange: Exchange, answer: Callable[[], object], waits: bool) -> Answer | None:
        """None when the caller left meanwhile."""
        found: Answer | None = None
        async with trio.open_nursery() as nursery:
            if waits:
                nursery.start_soon(exchange.watch, nursery.cancel_scope)
            try:
                found = await answer()  # type: ignore[misc]
            except CspError as exc:
                found = refused_as(exc)
            nursery.cancel_scope.cancel()
        return found

    def _identify(self, head: Head) -> Identity:
        """Raises Refused. The token itself is in no sentence."""
        services, token = self.site.services, head.token
        who = services.tokens.who(token) if token is not None else None
        if who is None or (who[0].agent is not None and who[0].agent not in services.hub.agents):
            why = "it is missing" if token is None else "not known, or revoked"
            hint = "`Authorization: Bearer TOKEN`: the room token from cspd's runtime directory, or an agent's own"
            challenge = [("www-authenticate", 'Bearer realm="csp"')]
            raise Refused(401, CspError("no-token", f"token: {why}", hint), challenge)
        identity, hash = who
        if hash and hash not in self._shown:
            self._shown.add(hash)
            services.tokens.opened(hash, self.revoked)
            self._tokens.callback(services.tokens.closed, hash, self.revoked)
        self.site.crowd.know(self)
        return identity

    async def _stream(self, exchange: Exchange, head: Head, identity: Identity, events: bool) -> None:
        since = head.query.get("since", head.headers.get("last-event-id"))
        cursor = None if since is None else number(since)
        asked = Subscription(identity, cursor if isinstance(cursor, int) else None, head.query.get("room"))
        try:
            if isinstance(cursor, str):
                raise CspError("invalid-params", f"since: got {cursor[:80]!r}: expected a cursor, an integer from 0 on")
            asked.check(self.site.services)
        except CspError as exc:
            raise Refused(STATUS.get(exc.code, 400), exc) from exc
        await exchange.body()
        if head.upgrades:
            await self._websocket(exchange, head, asked, events)
        elif head.method == "HEAD":
            await exchange.reply(Answer(200, kind=EVENTS))
        else:
            await self._server_sent(exchange, asked)

    async def _server_sent(self, exchange: Exchange, asked: Subscription) -> None:
        self.site.counts.requests[200] += 1
        await exchange.begin(EVENTS)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.watch, nursery.cancel_scope)
                await to_sse(self.site.services, asked, exchange, self._dropped)
                nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(CLOSE_SEC, shield=True), suppress(*GONE):
                await exchange.end_with(farewell(self.why[1]))

    async def _websocket(self, exchange: Exchange, head: Head, asked: Subscription, events: bool) -> None:
        headers = handshake(head)
        self.site.counts.requests[101] += 1
        websocket = WebSocket(self.stream, await exchange.switch(headers))

        async def beside(caller: Caller) -> None:
            caller.follows = events
            async with trio.open_nursery() as nursery:
                nursery.start_soon(websocket.keep_alive)
                if events:
                    await to_websocket(self.site.services, asked, websocket, self._dropped)

        try:
            who = f"client {asked.identity.name}"
            await converse(RpcPeer(websocket, who), asked.identity, 0, self.site.services, beside)
        finally:
            with trio.move_on_after(CLOSE_SEC, shield=True):
                await websocket.close(*self.why)

    def _dropped(self, reason: str) -> None:
        self.site.counts.dropped[reason] += 1


def address_of(sock: socket.socket) -> str:
    """Ours that the peer connected to; "" for a Unix socket, which no web page can reach."""
    return "" if sock.family == socket.AF_UNIX else str(sock.getsockname()[0])
