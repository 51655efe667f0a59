"""What each path answers: a call of the method table, and the shape of it in HTTP.

Who asks is known here already (`connection`); WebSockets and event streams are not requests but connections.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import trio

from cspd.control.call import Caller, Services
from cspd.control.methods import dispatch
from cspd.control.params import Params
from cspd.errors import CspError
from cspd.gateway.identity import Identity
from cspd.transport import Asking
from cspd.web.exchange import Answer, Exchange, as_json, refusal
from cspd.web.head import Head
from cspd.web.metrics import KIND, Counts, page
from cspd.web.sessions import Sessions, Waiting
from cspd.wire import rpc

# A CspError's code -> status; every other one is the request's fault: 400
STATUS: Mapping[str, int] = {
    **dict.fromkeys(("no-such-agent", "no-such-room", "no-such-message", "no-such-path"), 404),
    **dict.fromkeys(("not-allowed", "not-a-member"), 403),
    **dict.fromkeys(("too-long", "oversize"), 413),
    **dict.fromkeys(("busy", "stopping", "storage", "too-many"), 503),
    **{"no-token": 401, "not-active": 409, "cursor-too-old": 410, "no-such-cursor": 410, "timed-out": 504},
    "internal": 500,
}
NEED_CONNECTION = ("events.subscribe", "sidecar.hello")  # what they begin goes on after their answer
HISTORY_NUMBERS = ("since", "limit")
HISTORY_WORDS = ("room", "from", "to", "grep")


@attrs.frozen
class Ask:
    """One request of somebody known. `connections`: how many there are now."""

    services: Services
    identity: Identity
    head: Head
    body: bytes
    exchange: Exchange  # for an answer in pieces
    sessions: Sessions
    counts: Counts
    connections: int


class OneShot:
    """The other side of a single request: it can be told nothing but the answer."""

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        raise CspError("unreachable", f"{method}: an HTTP request cannot be asked back", "use a WebSocket")

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Progress of a caller that did not ask for a stream."""

    async def send_lines(self, data: bytes) -> None: ...

    async def aclose(self) -> None: ...


def refused_as(problem: CspError) -> Answer:
    return refusal(problem, STATUS.get(problem.code, 400))


async def call(
    services: Services,
    identity: Identity,
    request: rpc.Request,
    peer: Asking | None = None,
    waiting: Waiting | None = None,
) -> Any:
    """The result of one method; raises the CspError that it was refused with."""
    if request.method in NEED_CONNECTION:
        raise CspError("not-allowed", f"{request.method}: needs a connection that stays", "GET /events, or a WebSocket")
    problem: CspError | None = None
    value: Any = None
    async with trio.open_nursery() as nursery:
        try:
            caller = Caller(identity, 0, peer or OneShot(), nursery)
            caller.waiting = caller.waiting if waiting is None else waiting
            value = dispatch(services, caller, request)
            if inspect.isawaitable(value):
                value = await value
        except CspError as exc:
            problem = exc
        nursery.cancel_scope.cancel()
    if problem is not None:
        raise problem
    return value


async def _result(ask: Ask, method: str, params: Mapping[str, Any]) -> Answer:
    value = await call(ask.services, ask.identity, rpc.Request(method, dict(params), 1))
    return Answer(200, as_json(value))


async def agents(ask: Ask) -> Answer:
    return await _result(ask, "agent.list", {})


async def rooms(ask: Ask) -> Answer:
    return await _result(ask, "room.list", {})


async def history(ask: Ask) -> Answer:
    query = ask.head.query
    params: dict[str, Any] = {key: query[key] for key in HISTORY_WORDS if key in query}
    params |= {key: number(query[key]) for key in HISTORY_NUMBERS if key in query}
    return await _result(ask, "chat.history", params)


def number(text: str) -> int | str:
    """What is no number stays as it is, for the method to refuse."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else text


async def metrics(ask: Ask) -> Answer:
    services, store = ask.services, ask.services.hub.store
    rows = await call(services, Identity(), rpc.Request("agent.list", {}, 1))
    now = {
        "csp_uptime_seconds": trio.current_time() - services.started_at,
        "csp_connections": ask.connections,
        "csp_subscribers": services.hub.subscribers.count,
        "csp_rooms": len(services.hub.rooms.names()),
        "csp_event_cursor": store.committed_cursor,
        "csp_history_commits_total": store.commits,
        "csp_connections_total": ask.counts.connections,
        "csp_connections_turned_away_total": ask.counts.turned_away,
    }
    return Answer(200, page(ask.counts, rows, now).encode(), KIND)


async def healthz(ask: Ask) -> Answer:
    return Answer(200, b"ok\n", "text/plain; charset=utf-8")


async def register(ask: Ask) -> Answer:
    """A name and a token for a program that wants to be an agent."""
    if ask.identity.agent is not None:
        why = f"register: asked by {ask.identity.agent}: only who has the room token may"
        raise CspError("not-allowed", why, "ask the person")
    told = _object(ask.body)
    capabilities = told.get("capabilities")
    if isinstance(capabilities, list) and all(isinstance(word, str) for word in capabilities):
        told["capabilities"] = dict.fromkeys(capabilities, True)
    params = Params(told)
    wanted, room, capabilities = params.text("name"), params.maybe_text("room"), params.meta("capabilities")
    params.check()
    services = ask.services
    guest = await services.guests.register(wanted, room, capabilities)
    try:
        token = await services.tokens.issue(guest.name)
    except CspError:
        await services.guests.forget(guest.name)  # nobody could ever speak for it
        raise
    made = {"agent": guest.name, "room": guest.record.room, "token": token, "events": "/events"}
    return Answer(201, as_json(made))


def _object(body: bytes) -> dict[str, Any]:
    value = rpc.parse(body.strip() or b"{}")
    if not isinstance(value, dict):
        raise CspError("invalid-params", f"body: got {rpc.kind_of(value)}: expected an object")
    return value


async def one_call(ask: Ask) -> Answer:
    """One JSON-RPC request as a body; its error is in the reply's body too."""
    request = read_call(ask)
    return request if isinstance(request, Answer) else await answer_to(ask, request)


def read_call(ask: Ask) -> rpc.Request | Answer:
    """What the body asks for, or the answer to what is no request."""
    try:
        message = rpc.decode(ask.body)
    except CspError as exc:
        return Answer(400, rpc.error(exc.data.pop("id", None), exc))
    return message if isinstance(message, rpc.Request) else Answer(202)  # we asked nothing; MCP's clients may answer


async def answer_to(
    ask: Ask, request: rpc.Request, peer: Asking | None = None, waiting: Waiting | None = None
) -> Answer:
    try:
        value = await call(ask.services, ask.identity, request, peer, waiting)
    except CspError as exc:
        return Answer(202) if request.id is None else Answer(200, rpc.error(request.id, exc))
    if request.id is None or value is rpc.NO_REPLY:
        return Answer(202)
    return Answer(200, rpc.result(request.id, value))


Handler = Callable[[Ask], Awaitable[Answer]]
