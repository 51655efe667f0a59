"""Takes connections off a listening socket, many at a time: a crowd must not wait for a turn of the scheduler each."""

import errno
import logging
import socket
from collections.abc import Callable

import trio

log = logging.getLogger("trio.serve_listeners")  # whose words on refused accepts are let through now and then

BATCH = 64  # then others get their turn
PAUSE_SEC = 0.1
NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


async def accept_all(listener: socket.socket, admit: Callable[[socket.socket], None]) -> None:
    """Until cancelled; closes the listener."""
    with listener:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                for _ in range(BATCH):
                    admit(_accepted(listener))
            except BlockingIOError:
                pass
            except OSError as exc:
                if exc.errno in NOTHING_LEFT:
                    log.exception("accept: %s: again in %g s", exc.strerror, PAUSE_SEC)
                    await trio.sleep(PAUSE_SEC)
                # else that one connection failed before it was taken


def _accepted(listener: socket.socket) -> socket.socket:
    sock, _ = listener.accept()
    sock.setblocking(False)
    return sock
