"""Signals that cspd heeds, read from a descriptor: they are blocked from its first moment on, in each of its threads.

So one that comes while the installed version takes over neither ends the process by default nor is lost: it stays
pending over the exec, and is read by the version after us. What a signal means is decided by `daemon`.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

ENDING = (signal.SIGTERM, signal.SIGINT)
HEEDED = (*ENDING, signal.SIGHUP)
INFO_SIZE = 128  # of struct signalfd_siginfo, which begins with the number
SET_SIZE = 128  # of sigset_t
_libc = ctypes.CDLL(None, use_errno=True)


def hold_back() -> None:
    """Call before there is any thread. They wait until somebody reads them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)


def let_through() -> None:
    """They do again what they do by default, for a program that does not read them, or no longer."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)


@attrs.frozen
class Heeded:
    """Who does not ask for the next one leaves it pending."""

    fd: int

    async def wait(self) -> None:
        """Until one is there; it stays."""
        import trio  # the signals are held back before anything that takes as long to import

        await trio.lowlevel.wait_readable(self.fd)

    async def next(self) -> signal.Signals:
        await self.wait()
        info = os.read(self.fd, INFO_SIZE)
        return signal.Signals(int.from_bytes(info[:4], sys.byteorder))


@contextmanager
def heeded(*numbers: signal.Signals) -> Iterator[Heeded]:
    """signalfd(2), which Python lacks. Raises OSError."""
    mask = ctypes.create_string_buffer(SET_SIZE)
    _libc.sigemptyset(mask)
    for number in numbers:
        _libc.sigaddset(mask, int(number))
    fd = int(_libc.signalfd(-1, mask, os.O_NONBLOCK | os.O_CLOEXEC))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        yield Heeded(fd)
    finally:
        os.close(fd)
