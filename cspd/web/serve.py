"""The listener as a whole: opens it as configured, again when the configuration changes, and ends it within a second.

One task a connection; all of them are cancelled at the end, and a WebSocket is told why.
"""

import logging
import math
import socket
import ssl
from functools import partial
from typing import Protocol

import trio

from cspd.config import DaemonConfig, GatewayConfig, TcpAddress
from cspd.control.call import Services
from cspd.errors import CspError
from cspd.sd import Service
from cspd.web.accept import accept_all
from cspd.web.connection import Connection, Site, address_of
from cspd.web.crowd import Crowd
from cspd.web.listen import Passed, open_listeners, shown, tls_context
from cspd.web.metrics import Counts
from cspd.web.porch import Porch

log = logging.getLogger("cspd.web")

AGAIN_SEC = 5.0  # an address that is taken, by our own predecessor perhaps, is free again some time


class Configured(Protocol):
    """`reloaded` is another one after each reload; `listen` and `deaf` are ours to write."""

    config: DaemonConfig
    service: Service
    reloaded: trio.Event
    listen: str
    deaf: str


async def serve_web(
    services: Services, daemon: Configured, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Listen until cancelled."""
    counts, crowd, trouble = Counts(), Crowd(), ""
    first = True
    while True:
        config = daemon.config.gateway
        site = Site(services, config, counts, crowd)
        listeners, tls, trouble = await _open(config, daemon.service.sockets, trouble)
        daemon.listen, daemon.deaf = shown(listeners[0]) if listeners else "", trouble
        async with trio.open_nursery() as nursery:
            if listeners:
                porch = Porch(crowd, partial(_enter, site, tls, nursery), blind=tls is not None)
                nursery.start_soon(porch.watch)
                for listener in listeners:
                    nursery.start_soon(accept_all, listener, partial(_admit, counts, porch))
                log.info("gateway: listening on %s%s", daemon.listen, " (TLS)" if tls else "")
            elif not config.listen:
                log.info("gateway: off")
            if first:
                task_status.started()
                first = False
            may_pass = trouble and isinstance(config.address, TcpAddress)  # a socket that was not passed never comes
            with trio.move_on_after(AGAIN_SEC if may_pass else math.inf):
                while daemon.config.gateway == config:
                    await daemon.reloaded.wait()
                trouble = ""  # of another configuration it is said again
            nursery.cancel_scope.cancel()


async def _open(
    config: GatewayConfig, passed: Passed, told: str
) -> tuple[list[socket.socket], ssl.SSLContext | None, str]:
    """With the reason when it cannot be had, which is logged unless it has been `told`: cspd goes on without."""
    try:
        tls = tls_context(config)
        return await open_listeners(config, passed), tls, ""
    except CspError as exc:
        if str(exc) != told:
            log.error("%s", exc)
        return [], None, str(exc)


def _admit(counts: Counts, porch: Porch, sock: socket.socket) -> None:
    counts.connections += 1
    porch.admit(sock)


def _enter(site: Site, tls: ssl.SSLContext | None, nursery: trio.Nursery, sock: socket.socket, late: bool) -> None:
    """From here on it costs a task of its own."""
    try:
        stream: trio.abc.Stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        address = address_of(sock)
    except OSError:
        sock.close()
        return  # it is gone already
    if tls is not None:
        stream = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
    nursery.start_soon(Connection(site, stream, address, late).serve)
