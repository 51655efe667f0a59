"""Serves the method table on cspd.sock: one task a connection, identity taken from the kernel.

A peer that breaks off, sends nonsense or asks for what is refused costs only its own connection or an error reply.
`converse` is the same for every connection that carries JSON-RPC both ways: `web` has WebSockets.
"""

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import closing

import attrs
import trio

from cspd.control.call import Caller, Services
from cspd.control.methods import dispatch
from cspd.control.who import Who
from cspd.errors import CspError
from cspd.gateway.identity import Identity
from cspd.gateway.link import Link
from cspd.transport import LineStream, PeerProcess, RpcPeer
from cspd.wire import rpc

log = logging.getLogger("cspd.control")

REPEAT_SEC = 60.0  # between two words on the same refusal of the kernel, of which there are ten a second


@attrs.define
class Seldom:
    """Lets trio's word on a refused accept (no descriptors) through now and then, and without its traceback."""

    last: float = float("-inf")

    def __call__(self, record: logging.LogRecord) -> bool:
        if record.created - self.last < REPEAT_SEC:
            return False
        self.last, record.exc_info = record.created, None
        return True


logging.getLogger("trio.serve_listeners").addFilter(Seldom())


async def serve_control(
    listener: socket.socket,
    services: Services,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept connections until cancelled."""
    listener.setblocking(False)
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await serve_connection(stream, services)
        except Exception:  # a bug, beside the requests, which `dispatch` watches: it costs this connection alone
            log.exception("a connection is closed: it failed in cspd")

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        task_status.started()


async def serve_connection(stream: trio.SocketStream, services: Services) -> None:
    lines = LineStream(stream)
    peer = lines.peer
    if peer.uid not in (os.getuid(), 0):  # the directory's mode keeps others out already
        await lines.aclose()
        return
    try:
        process = PeerProcess(peer.pid)
    except OSError as exc:
        log.warning("process %d: not let in: %s", peer.pid, exc)
        await lines.aclose()
        return
    try:
        with closing(process):
            who = Who(process, services)
            identity = await who.ask_patiently()
            if isinstance(identity, Identity):
                process.close()  # it is not asked again: one descriptor less for each client
            await converse(RpcPeer(lines, f"process {peer.pid}"), identity, peer.pid, services, ask_again=who.ask)
    finally:
        await trio.aclose_forcefully(stream)


async def converse(
    peer: RpcPeer,
    identity: Identity | CspError,
    pid: int,
    services: Services,
    beside: Callable[[Caller], Awaitable[None]] | None = None,
    ask_again: Callable[[], Identity | CspError] | None = None,
) -> None:
    """Answer one peer until it leaves; `beside` runs as long.

    An error for an identity is for each of its requests; `ask_again` is called at each of them, until it knows better.
    """
    caller = None
    try:
        async with trio.open_nursery() as nursery:
            caller = Caller(Identity(), pid, peer, nursery)
            caller.believe(identity)

            def handle(request: rpc.Request) -> object:
                if caller.unidentified is not None and ask_again is not None:
                    caller.believe(ask_again())
                if caller.unidentified is not None and request.method != "sidecar.hello":
                    raise caller.unidentified
                return dispatch(services, caller, request)

            if beside is not None:
                nursery.start_soon(beside, caller)
            await peer.serve(handle)
            nursery.cancel_scope.cancel()
    except* CspError as group:
        log.debug("%s: %s", peer.name, group.exceptions)  # it left while we were talking
    finally:
        if caller is not None and caller.link is not None:
            unlink(services, caller.link)


def unlink(services: Services, link: Link) -> None:
    """The connection of a sidecar has ended."""
    services.hub.unlink(link)
    services.changed(link.agent)
