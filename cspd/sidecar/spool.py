"""What a sidecar has to say and nobody has acknowledged yet, in order; with a path it is on disk and outlives us.

Bounded: the oldest goes first. When and to whom it is said is `link`'s. Written with plain write(2): it survives
SIGKILL of any process, not a power cut.
"""

import json
import logging
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs

log = logging.getLogger("csp-sidecar")

COUNT_MAX = 10_000  # the ledger has the messages' last steps even when reports of them are dropped here
BYTES_MAX = 8 << 20
FILE_MAX = 2 * BYTES_MAX  # with what is done already; then the file is written anew
FILE_IDLE = 1 << 16  # bytes of done entries that may stay when nothing waits


class Entry(NamedTuple):
    number: int
    method: str
    params: dict[str, Any]
    size: int


@attrs.define
class Spool:
    """`add` at one end, `first` and `done` at the other."""

    path: Path | None = None
    _waiting: deque[Entry] = attrs.Factory(deque)
    _bytes: int = 0
    _last: int = 0
    _lost: int = 0
    _fd: int = -1
    _file_size: int = 0

    def __attrs_post_init__(self) -> None:
        if self.path is not None:
            self._recover(self.path)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._waiting)

    def add(self, method: str, params: dict[str, Any]) -> None:
        self._last += 1
        line = _line({"n": self._last, "method": method, "params": params})
        self._hold(Entry(self._last, method, params, len(line)))
        self._append(line)
        while len(self._waiting) > COUNT_MAX or self._bytes > BYTES_MAX:
            self._lose()

    def first(self) -> Entry:
        return self._waiting[0]

    def done(self, entry: Entry) -> None:
        """It is acknowledged, or refused for good. Nothing happens when it has been dropped meanwhile."""
        if self._waiting and self._waiting[0].number == entry.number:
            self._drop_first()
            self._append(_line({"done": entry.number}))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _hold(self, entry: Entry) -> None:
        self._waiting.append(entry)
        self._bytes += entry.size

    def _drop_first(self) -> Entry:
        entry = self._waiting.popleft()
        self._bytes -= entry.size
        return entry

    def _lose(self) -> None:
        entry = self._drop_first()
        self._append(_line({"done": entry.number}))
        self._lost += 1
        if self._lost.bit_count() == 1:  # 1, 2, 4, 8, ...: the log must not grow with the loss
            log.warning("%d reports that nobody took are lost, the last of them a %s", self._lost, entry.method)

    # ------------------------------------------------------------------ the file

    def _recover(self, path: Path) -> None:
        try:
            raw = path.read_bytes()
        except OSError:
            raw = b""  # there is none yet; if it is worse than that, the rewriting will say so
        for line in raw.split(b"\n"):
            try:
                self._reread(json.loads(line), len(line))
            except (ValueError, TypeError, KeyError):
                continue  # torn by a death in the middle of a write; nobody was promised anything about it
        self._rewrite()

    def _reread(self, body: dict[str, Any], size: int) -> None:
        if "done" in body:
            while self._waiting and self._waiting[0].number <= body["done"]:
                self._drop_first()
            return
        self._last = max(self._last, int(body["n"]))
        self._hold(Entry(int(body["n"]), str(body["method"]), dict(body["params"]), size))

    def _append(self, line: bytes) -> None:
        """A full disk costs what a death of ours would lose, never the agent."""
        if self._fd < 0:
            return
        try:
            self._file_size += os.write(self._fd, line)
        except OSError as exc:
            log.error("%s: %s: what waits there would not outlive us", self.path, exc.strerror)
        if self._file_size > (FILE_MAX if self._waiting else FILE_IDLE):
            self._rewrite()

    def _rewrite(self) -> None:
        assert self.path is not None
        entries = [_line({"n": e.number, "method": e.method, "params": e.params}) for e in self._waiting]
        new = self.path.with_name(self.path.name + ".new")
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", closefd=False) as file:
                file.writelines(entries)
            new.rename(self.path)
        except OSError as exc:
            log.error("%s: %s: what waits would not outlive us", self.path, exc.strerror)
            return
        self.close()
        self._fd, self._file_size = fd, sum(map(len, entries))


def _line(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"
