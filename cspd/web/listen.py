"""The listener's sockets and its certificate, as [gateway] in cspd.toml says.

What goes wrong here is one clear sentence; cspd goes on without a gateway.
"""

import errno
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from cspd.config import GatewayConfig, InheritedSocket, TcpAddress
from cspd.errors import CspError

BACKLOG = 4096  # a crowd that connects at once waits here, not in retransmissions

Passed = Mapping[str, Sequence[socket.socket]]
"""The service manager's sockets by name, as `sd` has read them; they stay open for the next reload."""


async def open_listeners(config: GatewayConfig, passed: Passed) -> list[socket.socket]:
    """Empty for off. Raises CspError("cannot-listen")."""
    match config.address:
        case TcpAddress(host, port):
            held = [sock for sockets in passed.values() for sock in sockets if _is_at(sock, host, port)]
            if held:  # a socket unit holds the address already, so nobody else could listen there
                return [_inherited(sock, config.listen) for sock in held]
            try:
                opened = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
                return [socket.socket(fileno=listener.socket.detach()) for listener in opened]
            except OSError as exc:
                why = "another program listens there" if exc.errno == errno.EADDRINUSE else exc.strerror or str(exc)
                hint = "set gateway.listen in cspd.toml, and `cspctl reload`"
                raise CspError("cannot-listen", f"gateway: {config.listen}: {why}", hint) from exc
        case InheritedSocket(name):
            if not passed.get(name):
                hint = f"a socket unit with FileDescriptorName={name} and Service=cspd.service"
                known = ", ".join(passed) or "none"
                raise CspError("cannot-listen", f"gateway: fd:{name}: no such socket was passed: {known}", hint)
            return [_inherited(sock, config.listen) for sock in passed[name]]
        case _:
            return []


def _is_at(sock: socket.socket, host: str, port: int) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[:2] == (host, port)


def _inherited(passed: socket.socket, what: str) -> socket.socket:
    """A duplicate: the passed one must be there at the next reload too."""
    try:
        sock = passed.dup()
    except OSError as exc:
        raise CspError("cannot-listen", f"gateway: {what}: {exc.strerror}") from exc
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise CspError("cannot-listen", f"gateway: {what}: not a listening stream socket", "ListenStream= makes one")
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def shown(listener: socket.socket) -> str:
    """The address that a client would use."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    return f"[{name[0]}]:{name[1]}" if listener.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def tls_context(config: GatewayConfig) -> ssl.SSLContext | None:
    """None without a certificate. Raises CspError("bad-certificate")."""
    if not config.tls_certificate:
        return None
    certificate, key = (Path(path).expanduser() for path in (config.tls_certificate, config.tls_key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # a password would be asked for on the terminal
    except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
        why = (isinstance(exc, OSError) and exc.strerror) or str(exc)
        hint = "expected PEM files that belong together, the key unencrypted"
        raise CspError("bad-certificate", f"gateway: {certificate}, {key}: {why}", hint) from exc
    return context
