"""What a sidecar leaves for its successor: the screen, the output since then, its settings, and what it was typing.

Three files beside the agent's socket, kept as long as the terminal. Written with plain write(2): they survive SIGKILL
of any process, which is what they are for, and need not survive the machine, whose agents are gone then anyway.
"""

import json
import logging
import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

import attrs

log = logging.getLogger("csp-sidecar")

JOURNAL_LONG = 1 << 20  # bytes of output after which a new snapshot is worth its 3 ms, when there is time
JOURNAL_MAX = 8 << 20  # and in any case: a successor reads it again in 0.1 s
REPLAYS_MAX = 3  # sidecars that may die over the same journal
LEDGER_MAX = 1 << 18
LEDGER_KEPT = 1000  # messages whose last step is remembered, so that a late duplicate is recognised
NOBODYS = -1  # an incarnation that ended with everything else
_BASE = struct.Struct("!Q")


class Remains(NamedTuple):
    """What was found. `snapshot` belongs to `incarnation`; `journal` is the raw output after it."""

    incarnation: int
    snapshot: bytes
    journal: bytes


def _write_whole(path: Path, *parts: bytes) -> None:
    new = path.with_name(path.name + ".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as f:
        f.writelines(parts)
    new.rename(path)


def _reopened(fd: int, path: Path) -> int:
    """To append to the file that now stands at `path`."""
    if fd >= 0:
        os.close(fd)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)


@attrs.define
class BlackBox:
    """Owner of NAME.screen, NAME.journal and NAME.ledger.

    Bytes of output are counted from the start of the files' life. The snapshot says up to which count it includes the
    output and the journal from which count on it holds it, so that a death between the two renames replays nothing
    twice.
    """

    screen: Path
    journal: Path
    ledger: Path
    incarnation: int
    pid: int = 0  # of the agent: incarnations are counted anew after a crash of everything
    _count: int = 0  # bytes of output so far
    _base: int = 0  # count at the begin of the journal
    _journal_fd: int = -1
    _ledger_fd: int = -1
    _ledger_size: int = 0
    _complained: bool = False
    draft: bool = False  # does an unsent line of a person stand in the input?
    settings: dict[str, Any] | None = None  # what cspd last said; a reload changes what the keeper was given
    recorded: int | None = None  # the count of output that is safe in a recording

    def recover(self) -> Remains | None:
        """What the sidecar before left, or None. What its readers died of again and again is not read once more."""
        snapshot, head = self._read_screen()
        journal = b""
        attempt = self._begin_attempt()
        if attempt is not None:
            raw = attempt.read_bytes()
            base = _BASE.unpack_from(raw)[0] if len(raw) >= _BASE.size else 0
            included = head.get("count", 0)
            self._count = max(included, base + len(raw) - _BASE.size)
            journal = raw[_BASE.size + max(0, included - base) :]
        if not snapshot and not journal:
            return None
        same = head.get("pid", self.pid) == self.pid
        return Remains(head.get("incarnation", self.incarnation) if same else NOBODYS, snapshot, journal)

    def _begin_attempt(self) -> Path | None:
        """The journal under a name that tells a successor how often its reading was begun; None: it is given up.

        One death is no proof: somebody may have killed us. Every further one costs only a fraction of a second.
        """
        attempts = self._attempts()
        begun = [attempt for attempt in attempts if attempt.exists()]
        if not begun:
            if not self.journal.exists():
                return None
            return self.journal.rename(attempts[0])
        if begun[-1] is attempts[-1]:
            log.error("%s: sidecars died while they read it: given up", self.journal)
            begun[-1].unlink()
            return None
        return begun[-1].rename(attempts[attempts.index(begun[-1]) + 1])

    def _attempts(self) -> list[Path]:
        return [self.journal.with_name(f"{self.journal.name}.replay-{n}") for n in range(1, REPLAYS_MAX + 1)]

    def _read_screen(self) -> tuple[bytes, dict[str, Any]]:
        try:
            line, _, snapshot = self.screen.read_bytes().partition(b"\n")
            return snapshot, json.loads(line)
        except (OSError, ValueError):
            return b"", {}

    def begin(self, snapshot: bytes) -> None:
        """Call once, after `recover`: start a new journal on top of this snapshot."""
        self.save(snapshot)
        for attempt in self._attempts():
            attempt.unlink(missing_ok=True)

    def append(self, output: bytes) -> None:
        """In the same step in which it is shown: what has been read from the PTY exists nowhere else."""
        self._count += len(output)
        self._write(self._journal_fd, output)

    def _write(self, fd: int, data: bytes) -> None:
        """A full disk costs the successor's knowledge, never the agent."""
        if fd < 0:
            return
        try:
            os.write(fd, data)
        except OSError as exc:
            self._complain(exc)

    def _complain(self, exc: OSError) -> None:
        if not self._complained:
            self._complained = True
            log.error("%s: %s: a sidecar after this one would not know all", self.screen, exc.strerror)

    @property
    def long(self) -> bool:
        return self._count - self._base > JOURNAL_LONG

    @property
    def full(self) -> bool:
        return self._count - self._base > JOURNAL_MAX

    def save(self, snapshot: bytes, rest: bytes = b"") -> None:
        """`rest`: the last of the output, which is not in the snapshot."""
        included = self._count - len(rest)
        head = {"incarnation": self.incarnation, "pid": self.pid, "count": included}
        self._base = included  # also when it fails: the next try is a megabyte later
        try:
            _write_whole(self.screen, json.dumps(head).encode(), b"\n", snapshot)
            _write_whole(self.journal, _BASE.pack(included), rest)
            self._journal_fd = _reopened(self._journal_fd, self.journal)
        except OSError as exc:
            self._complain(exc)

    # ------------------------------------------------------------------ the ledger of deliveries

    def recover_ledger(self) -> list[dict[str, Any]]:
        """The last entry of each message, oldest first."""
        last: dict[str, dict[str, Any]] = {}
        try:
            lines = self.ledger.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
        for line in lines:
            try:
                entry = json.loads(line)
                if self._recall(entry):
                    continue
                last.pop(entry["message_id"], None)
                last[entry["message_id"]] = entry
            except (ValueError, TypeError, KeyError):
                continue  # torn by a death in the middle of a write; the entry before it stands
        kept = list(last.values())[-LEDGER_KEPT:]
        self._rewrite_ledger([*kept, *self._to_recall()])
        return kept

    def _recall(self, entry: dict[str, Any]) -> bool:
        """Is it no message's, but something that is known of the agent? Then it is known again."""
        match entry:
            case {"draft": bool(draft)}:
                self.draft = draft
            case {"settings": dict(settings)}:
                self.settings = settings
            case {"recorded": int(count)}:
                self.recorded = count
            case _:
                return False
        return True

    def _to_recall(self) -> list[dict[str, Any]]:
        known = {"draft": self.draft, "settings": self.settings, "recorded": self.recorded}
        return [{key: value} for key, value in known.items() if value is not None]

    def note_settings(self, settings: dict[str, Any]) -> None:
        """A successor goes on with them, though cspd may be away."""
        if settings != self.settings:
            self.settings = settings
            self.record({"settings": settings})

    @property
    def count(self) -> int:
        """Bytes of output so far."""
        return self._count

    def note_recorded(self, count: int) -> None:
        """A successor records what came after that."""
        if count != self.recorded:
            self.recorded = count
            self.record({"recorded": count})

    def unrecorded(self, journal: bytes) -> int:
        """So many bytes at the end of the journal are in no recording."""
        return 0 if self.recorded is None else max(0, min(self._count - self.recorded, len(journal)))

    def note_draft(self, draft: bool) -> None:
        """Before the keys reach the program: a successor must not type over what it did not see being typed."""
        if draft != self.draft:
            self.draft = draft
            self.record({"draft": draft})

    def _rewrite_ledger(self, entries: list[dict[str, Any]]) -> None:
        data = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
        self._ledger_size = len(data)
        try:
            _write_whole(self.ledger, data)
            self._ledger_fd = _reopened(self._ledger_fd, self.ledger)
        except OSError as exc:
            self._complain(exc)

    def record(self, entry: dict[str, Any]) -> None:
        """Before the act that it announces: a successor must never take a typed message for an untouched one."""
        data = json.dumps(entry).encode() + b"\n"
        self._write(self._ledger_fd, data)
        self._ledger_size += len(data)
        if self._ledger_size > LEDGER_MAX:
            self.recover_ledger()

    def close(self) -> None:
        for fd in (self._journal_fd, self._ledger_fd):
            if fd >= 0:
                os.close(fd)
        self._journal_fd = self._ledger_fd = -1
