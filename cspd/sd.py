"""The service manager that runs this process, if one does: what it passed on, and what it is told.

sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3) in a few lines. Which socket is for what, and what is worth
telling, is decided by the programs. Standard library only, but for the watchdog's sleep.
"""

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

import attrs

FIRST_FD = 3  # SD_LISTEN_FDS_START


@attrs.frozen
class Service:
    """Nothing in it when no service manager is there: then telling it something does nothing."""

    address: str = ""  # of its socket; @ begins an abstract one
    watchdog_sec: float | None = None  # it expects to hear of us at least so often
    sockets: Mapping[str, tuple[socket.socket, ...]] = attrs.field(factory=dict)  # by FileDescriptorName=; ours to keep

    def tell(self, *lines: str) -> None:
        """Assignments such as READY=1. A manager that does not listen is no reason to end."""
        if not self.address:
            return
        path = f"\0{self.address[1:]}" if self.address[0] == "@" else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(path)
                sock.sendall("\n".join(lines).encode())
        except OSError:
            pass  # it is being executed anew, or has gone; it will look at us by itself

    def fds(self) -> list[int]:
        """Descriptors of all sockets that it passed."""
        return [sock.fileno() for sockets in self.sockets.values() for sock in sockets]

    def ready(self, status: str) -> None:
        self.tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """`ready` must follow, whatever came of it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, longest_sec: float = 0.0) -> None:
        """The end takes up to `longest_sec`, however short the unit's TimeoutStopSec= is."""
        self.tell("STOPPING=1", *([f"EXTEND_TIMEOUT_USEC={int(longest_sec * 1e6)}"] if longest_sec else []))

    def alive(self) -> None:
        if self.watchdog_sec:
            self.tell("WATCHDOG=1")

    async def feed_watchdog(self) -> None:
        """A loop that hangs does not get here in time, and the manager replaces the process."""
        import trio  # csp-keeper tells things too, and has no loop

        while self.watchdog_sec:
            self.alive()
            await trio.sleep(self.watchdog_sec / 2)


def service(environ: MutableMapping[str, str]) -> Service:
    """Take what is meant for this process. Call it once.

    What children could take for theirs goes from the environment; LISTEN_* names by LISTEN_PID whom it is for.
    """
    address, watchdog_sec = environ.pop("NOTIFY_SOCKET", ""), _watchdog_sec(environ)
    for key in ("WATCHDOG_PID", "WATCHDOG_USEC"):
        environ.pop(key, None)
    return Service(address if address[:1] in ("/", "@") else "", watchdog_sec, _inherited(environ))


def _for_us(pid: str) -> bool:
    return pid == str(os.getpid())


def _watchdog_sec(given: Mapping[str, str]) -> float | None:
    usec = given.get("WATCHDOG_USEC", "")
    meant = "WATCHDOG_PID" not in given or _for_us(given["WATCHDOG_PID"])
    return int(usec) / 1e6 if meant and usec.isdigit() else None


def _inherited(given: Mapping[str, str]) -> dict[str, tuple[socket.socket, ...]]:
    count = given.get("LISTEN_FDS", "")
    if not _for_us(given.get("LISTEN_PID", "")) or not count.isdigit():
        return {}
    names = given.get("LISTEN_FDNAMES", "").split(":")
    sockets: dict[str, tuple[socket.socket, ...]] = {}
    for index in range(int(count)):
        os.set_inheritable(FIRST_FD + index, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        sockets[name] = (*sockets.get(name, ()), socket.socket(fileno=FIRST_FD + index))
    return sockets
