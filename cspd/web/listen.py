"""The listener's sockets and its certificate, as [gateway] in cspd.toml says.

What goes wrong here is one clear sentence; cspd goes on without a gateway.
"""

import errno
import fcntl
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import trio

from cspd.config import GatewayConfig, InheritedSocket, TcpAddress
from cspd.errors import CspError

BACKLOG = 4096  # a crowd that connects at once waits here, not in retransmissions
FIRST_FD = 3  # systemd's SD_LISTEN_FDS_START


async def open_listeners(config: GatewayConfig, environ: Mapping[str, str]) -> list[trio.SocketListener]:
    """Empty for off. Raises CspError("cannot-listen")."""
    match config.address:
        case TcpAddress(host, port):
            try:
                return list(await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG))
            except OSError as exc:
                why = "another program listens there" if exc.errno == errno.EADDRINUSE else exc.strerror or str(exc)
                hint = "set gateway.listen in cspd.toml, and `cspctl reload`"
                raise CspError("cannot-listen", f"gateway: {config.listen}: {why}", hint) from exc
        case InheritedSocket(name):
            return [_inherited(fd, config.listen) for fd in inherited_fds(name, environ)]
        case _:
            return []


def inherited_fds(name: str, environ: Mapping[str, str]) -> list[int]:
    """The descriptors that systemd passed under this name. Raises CspError("cannot-listen") when there is none."""
    names = environ.get("LISTEN_FDNAMES", "").split(":") if environ.get("LISTEN_PID") == str(os.getpid()) else []
    found = [FIRST_FD + number for number, word in enumerate(names) if word == name]
    if not found:
        passed = ", ".join(names) or "none"
        hint = f"a socket unit with FileDescriptorName={name} and Service=cspd.service"
        raise CspError("cannot-listen", f"gateway: fd:{name}: no such socket was passed: {passed}", hint)
    return found


def _inherited(fd: int, what: str) -> trio.SocketListener:
    """A duplicate: the passed one must be there at the next reload too."""
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))
    except OSError as exc:
        raise CspError("cannot-listen", f"gateway: {what}: {exc.strerror}") from exc
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise CspError("cannot-listen", f"gateway: {what}: not a listening stream socket", "ListenStream= makes one")
    sock.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def shown(listener: trio.SocketListener) -> str:
    """The address that a client would use."""
    name = listener.socket.getsockname()
    if listener.socket.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    return f"[{name[0]}]:{name[1]}" if listener.socket.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


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
