"""Which paths there are, and what must be shown to use them. Pure, but for the handlers that it names."""

from collections.abc import Mapping

import attrs

from cspd.errors import CspError, nearest
from cspd.web import requests
from cspd.web.exchange import EVENTS
from cspd.web.head import Head, Refused
from cspd.web.mcp import mcp


@attrs.frozen
class Request:
    """One answer. `open`: without a token. `waits`: it may take long, so a caller that leaves ends it."""

    handler: requests.Handler
    open: bool = False
    waits: bool = False


@attrs.frozen
class Stream:
    """A connection that stays. `events`: they come at once; else only JSON-RPC is spoken."""

    events: bool


Route = Request | Stream

ROUTES: Mapping[str, Mapping[str, Route]] = {
    "/healthz": {"GET": Request(requests.healthz, open=True)},
    "/metrics": {"GET": Request(requests.metrics)},
    "/agents": {"GET": Request(requests.agents)},
    "/rooms": {"GET": Request(requests.rooms)},
    "/history": {"GET": Request(requests.history)},
    "/register": {"POST": Request(requests.register)},
    "/mcp": {"POST": Request(mcp, waits=True)},
    "/rpc": {"POST": Request(requests.one_call, waits=True), "GET": Stream(events=False)},
    "/events": {"GET": Stream(events=True)},
}


def find(head: Head) -> Route:
    """Raises Refused: 404, 405, or 426 for a WebSocket's path without an upgrade."""
    methods = ROUTES.get(head.path)
    if methods is None:
        hint = nearest(head.path, ROUTES) or f"known: {' '.join(ROUTES)}"
        raise Refused(404, CspError("no-such-path", f"path: {head.path[:80]!r}: not known", hint))
    route = methods.get("GET" if head.method == "HEAD" else head.method)
    if route is None:
        allow = ", ".join(methods)
        problem = CspError("bad-request", f"method: {head.method[:20]!r}: not for {head.path}", f"use {allow}")
        raise Refused(405, problem, [("allow", allow)])
    if isinstance(route, Stream) and not head.upgrades and not (route.events and head.wants(EVENTS)):
        hint = "open a WebSocket" + (", or ask with `Accept: text/event-stream`" if route.events else "")
        problem = CspError("bad-request", f"path: {head.path}: is a stream", hint)
        raise Refused(426, problem, [("upgrade", "websocket")])
    return route
