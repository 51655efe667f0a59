"""Log records with fields, for systemd's journal; plain lines on stderr where there is none.

`about(agent=..., room=..., message_id=...)` beside a record becomes AGENT=, ROOM= and MESSAGE_ID= there, so that
`journalctl --user AGENT=claude` finds it. The protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL
"""

import errno
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any

JOURNAL_SOCKET = "/run/systemd/journal/socket"
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # syslog's numbers
DEBUG_PRIORITY = 7


def about(**fields: str) -> dict[str, dict[str, str]]:
    """What a record is about, for `extra=` of a logging call."""
    return {"about": fields}


def fields_of(record: logging.LogRecord) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(record, "about", {})
    return found


def log_here(ident: str, line: str, **fields: str) -> None:
    """Send all records of this process to the journal if stderr is connected to it, else to stderr as `line`.

    `fields` go with every record. May be called again, in a forked child.
    """
    handler: logging.Handler
    if stderr_is_journal(os.environ):
        handler, line = JournalHandler(ident, fields), "%(message)s"  # the rest has fields of its own
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(line))
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def stderr_is_journal(environ: Mapping[str, str]) -> bool:
    """JOURNAL_STREAM is inherited by all; it counts only while stderr is still the file that it names."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        facts = os.fstat(2)
    except OSError:
        return False  # closed
    return (device, inode) == (str(facts.st_dev), str(facts.st_ino))


def encoded(fields: Mapping[str, object]) -> bytes:
    """A value with a newline goes with its length, as all bytes do that could end a field early."""
    parts = []
    for key, value in fields.items():
        data = str(value).encode(errors="backslashreplace")
        head = b"\n" + struct.pack("<Q", len(data)) if b"\n" in data else b"="
        parts.append(key.encode() + head + data + b"\n")
    return b"".join(parts)


class JournalHandler(logging.Handler):
    """A socket for each record: it holds no descriptor, so a forked child may close all that it knows nothing of."""

    def __init__(self, ident: str, fields: Mapping[str, str], path: str = JOURNAL_SOCKET) -> None:
        super().__init__()
        self.ident, self.fields, self.path = ident, dict(fields), path

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = encoded(self.entry(record))
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(self.path)
                try:
                    sock.sendall(data)
                except OSError as exc:
                    if exc.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                        raise
                    _send_as_file(sock, data)
        except Exception:  # as logging's own handlers do: the program goes on, and stderr says it
            self.handleError(record)

    def entry(self, record: logging.LogRecord) -> dict[str, Any]:
        """All fields of a record."""
        return {
            "MESSAGE": self.format(record),
            "PRIORITY": next((number for level, number in PRIORITIES if record.levelno >= level), DEBUG_PRIORITY),
            "SYSLOG_IDENTIFIER": self.ident,
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
            **{key.upper(): value for key, value in {**self.fields, **fields_of(record)}.items()},
        }


def _send_as_file(sock: socket.socket, data: bytes) -> None:
    """Too big for a datagram: a file in memory instead."""
    fd = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        socket.send_fds(sock, [b""], [fd])
    finally:
        os.close(fd)
