"""csp-forkserver: the process that sidecars are forked from, warm, and at rest between two forks. `sidecars` asks it.

Apart from the keeper: whatever that writes between two forks, each sidecar would have a copy of (measured: 1.5 MB),
and the rehearsal runs an event loop, which the process that must not die never shall. Ends with the keeper.
"""

import array
import errno
import json
import os
import socket
import sys
from typing import Any

from cspd.journal import log_here
from cspd.keeper.sidecars import FAILED, FDS, READY
from cspd.keeper.spawn import close_quietly, fork_sidecar, set_process_name, set_process_title
from cspd.paths import Paths
from cspd.sidecar.main import run_sidecar
from cspd.sidecar.warm import warm_up


def serve(keeper: socket.socket) -> None:
    """Until the keeper closes. Each datagram asks for one sidecar; its pid comes from itself, through its lifeline."""
    keeper.send(READY.encode())
    while fds := _receive(keeper):
        try:
            _fork(dict(zip(("spec", *FDS), fds, strict=True)))
        except OSError as exc:
            keeper.send(f"{FAILED} {exc.strerror}".encode())
        finally:
            close_quietly(*fds)


def _receive(keeper: socket.socket) -> list[int]:
    data, ancillary, _flags, _address = keeper.recvmsg(
        1, socket.CMSG_SPACE((1 + len(FDS)) * 4), socket.MSG_CMSG_CLOEXEC
    )
    return [fd for _level, _kind, payload in ancillary for fd in array.array("i", payload)] if data else []


def _fork(fds: dict[str, int]) -> None:
    """By a child that ends at once: an orphan is the child of the keeper, which is a subreaper, and reaped by it."""
    between = os.fork()
    if between:
        _, status = os.waitpid(between, 0)
        if status:
            raise OSError(os.WEXITSTATUS(status), os.strerror(os.WEXITSTATUS(status)))
        return
    status = errno.EIO
    try:
        memory = fds.pop("spec")
        spec = json.loads(os.pread(memory, os.fstat(memory).st_size, 0))
        fork_sidecar(lambda: _begin(spec, fds), list(fds.values()))
        status = 0
    except OSError as exc:
        status = exc.errno or status
    finally:
        os._exit(status)


def _begin(spec: dict[str, Any], fds: dict[str, int]) -> int:
    set_process_title(f"csp-sidecar {spec['name']}")  # before anybody knows of us
    try:
        os.write(fds["lifeline"], b"%d\n" % os.getpid())
    except BrokenPipeError:
        return 1  # the keeper has given us up, and had another one forked
    return run_sidecar(spec, fds)


def main() -> None:
    """`python -m cspd.keeper.forkserver FD`: a SOCK_SEQPACKET socket to the keeper."""
    set_process_name("csp-forkserver")
    log_here("csp-keeper", "csp-forkserver: %(message)s")
    warm_up(Paths.from_environ(os.environ))
    with socket.socket(fileno=int(sys.argv[1])) as keeper:
        os.set_inheritable(keeper.fileno(), False)
        try:
            serve(keeper)
        except ConnectionError:
            pass  # the keeper was killed while we did something for it: the end, too


if __name__ == "__main__":
    main()
