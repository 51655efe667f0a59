"""Starts csp-keeper, for cspd that has none. Without trio: cspd does it before it imports that.

Which keeper cspd then talks to, and that one is there again after a loss, is `client`'s.
"""

import os
import socket
import sys

from cspd.paths import Paths


def start_keeper(paths: Paths) -> int:
    """-> its pid: a child, in a session of its own."""
    argv = [sys.executable, "-P", "-m", "cspd.keeper.main", "--by-cspd"]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(paths.runtime.parent)}
    # The signals that cspd holds back are not meant for it.
    return os.posix_spawn(sys.executable, argv, env, setsid=True, setsigmask=())


def keeper_listens(paths: Paths) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(paths.keeper_socket))
        except OSError:
            return False
        return True
