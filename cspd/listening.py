"""Sockets on which programs of the person alone may call.

Apart from `transport`, because the keeper listens too and imports no trio: that is half of its start.
"""

import os
import socket
from pathlib import Path

from cspd.paths import check_socket_path

BACKLOG = 128


def listening_socket(path: Path) -> socket.socket:
    """A Unix socket bound at `path`, mode 0600 from its first moment; replaces a stale one.

    Only the owner of the instance's lock may call it, so what stands at `path` can only be a leftover.
    """
    check_socket_path(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock
