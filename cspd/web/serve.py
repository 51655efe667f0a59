"""The listener as a whole: opens it as configured, again when the configuration changes, and ends it within a second.

One task a connection; all of them are cancelled at the end, and a WebSocket is told why.
"""

import logging
import socket
import ssl
from functools import partial
from typing import Protocol

import trio

from cspd.config import DaemonConfig, GatewayConfig
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


class Configured(Protocol):
    """`reloaded` is another one after each reload; `listen` is ours to write."""

    config: DaemonConfig
    service: Service
    reloaded: trio.Event
    listen: str


async def serve_web(
    services: Services, daemon: Configured, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Listen until cancelled."""
    counts, crowd = Counts(), Crowd()
    first = True
    while True:
        config = daemon.config.gateway
        site = Site(services, config, counts, crowd)
        listeners, tls = await _open(config, daemon.service.sockets)
        daemon.listen = shown(listeners[0]) if listeners else ""
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
            while daemon.config.gateway == config:
                await daemon.reloaded.wait()
            nursery.cancel_scope.cancel()


async def _open(config: GatewayConfig, passed: Passed) -> tuple[list[socket.socket], ssl.SSLContext | None]:
    """Nothing, and a line in the log, when it cannot be had: the rest of cspd is worth more than the gateway."""
    try:
        tls = tls_context(config)
        return await open_listeners(config, passed), tls
    except CspError as exc:
        log.error("%s", exc)
        return [], None


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
