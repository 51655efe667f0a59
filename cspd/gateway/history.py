"""The rooms' memory under trio: appends share commits and are answered once on disk; reads run beside them.

Owns the writer's connection, the order of cursors and the queue before the disk. The SQL is in `schema`; who
receives what, and which step follows which, is decided by `room` and `inbox`.
"""

import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import attrs
import trio

from cspd.answer import Answer
from cspd.errors import CspError
from cspd.gateway import guestbook, inserts, kept, schema, tokenbook
from cspd.gateway.guestbook import GuestRecord
from cspd.gateway.inserts import clean
from cspd.gateway.records import Accepted, Delivery, Event, Message, Record, Story, as_event, message_json
from cspd.gateway.schema import sound
from cspd.gateway.tokenbook import TokenRecord

__all__ = ["Accepted", "Delivery", "Event", "History", "Message", "as_event", "message_json", "open_history"]

QUEUE_MAX = 4096  # appends waiting for the disk; beyond it they are refused ("busy"): memory is not a disk
READERS_MAX = 4  # reads at the same time; further ones wait their turn
ASK_EVERY = 20_000  # SQLite's steps (about a millisecond) between two looks whether a read is still wanted
BUSY_SEC = 5.0  # how long a commit waits for another program that holds the file

ACCESS = "check that the file and its directory are yours and writable"
DAMAGE = "cspd sets the damaged file aside and begins a new one: say it again"
HINTS: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: "make room on the disk that holds it",
    sqlite3.SQLITE_BUSY: "another program holds it: close that one",
    sqlite3.SQLITE_READONLY: ACCESS,
    sqlite3.SQLITE_CANTOPEN: ACCESS,
    sqlite3.SQLITE_CORRUPT: DAMAGE,
    sqlite3.SQLITE_NOTADB: DAMAGE,
}

log = logging.getLogger(__name__)
T = TypeVar("T")
OnCommit = Callable[[Sequence[Event | Accepted]], None]


Write = Callable[[sqlite3.Connection], T | CspError]


@attrs.define(eq=False)
class _Append(Generic[T]):
    """One write on its way: a message, or what runs in the writer's thread inside the transaction."""

    write: Accepted | Write[T]
    outcome: T | CspError | None = None
    answer: Answer[T] = attrs.Factory(Answer)

    def settle(self) -> None:
        self.answer.settle(self.outcome)  # type: ignore[arg-type]  # T itself may be None
        if isinstance(self.outcome, CspError) and not self.answer.heard:
            log.error("not stored: %s", self.outcome)


@asynccontextmanager
async def open_history(
    path: Path, *, on_commit: OnCommit | None = None, busy_sec: float = BUSY_SEC, damaged: bool = False
) -> AsyncIterator["History"]:
    """The history in `path`, made if absent. Leaving writes what is queued, then checkpoints and closes.

    `on_commit(batch)` is called after each commit, in cursor order, before the callers are answered; it must
    not block. A damaged file is set aside first (`History.quarantined`), also one that the history before found to be
    `damaged`. Raises CspError("storage").
    """
    try:
        db, quarantined = await trio.to_thread.run_sync(schema.open_database, path, busy_sec, damaged)
    except (sqlite3.Error, OSError) as error:
        raise _storage_error(path, error) from error
    history = History(path, db, quarantined, on_commit, busy_sec)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(history._write)
            try:
                yield history
            finally:
                history._stop()
    finally:
        with trio.CancelScope(shield=True):  # bounded: SQLite waits no longer than busy_sec
            await trio.to_thread.run_sync(_close, db)


def _close(db: sqlite3.Connection) -> None:
    with closing(db):
        try:
            db.execute("pragma wal_checkpoint(truncate)")
        except sqlite3.Error:
            pass  # only tidying up: what is in the WAL is safe there and is read at the next open


@attrs.define(eq=False)
class History:
    """One append-only log. Use it within `open_history`; appends and reads may come from any number of tasks.

    A caller that is cancelled while it waits for an append does not know whether the row was written.
    A failed commit leaves a gap in the cursors; it is never filled later.
    """

    path: Path
    _db: sqlite3.Connection
    quarantined: Path | None
    _on_commit: OnCommit | None
    _busy_sec: float
    next_cursor: int = 0
    committed_cursor: int = 0  # up to here all is on disk (or failed): replay ends here, live begins behind it
    forgotten_cursor: int = 0  # up to here some are deleted
    commits: int = 0
    damaged: trio.Event = attrs.field(factory=trio.Event)  # SQLite has stumbled over a damage of the file
    _queue: list[_Append[Any]] = attrs.field(factory=list)
    _wake: trio.Event = attrs.field(factory=trio.Event)
    _open: bool = True
    _writer: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _readers: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(READERS_MAX))

    def __attrs_post_init__(self) -> None:
        self.committed_cursor = schema.last_cursor(self._db)
        self.next_cursor = self.committed_cursor + 1
        self.forgotten_cursor = schema.forgotten_cursor(self._db)

    # Appending: the answer comes after COMMIT

    def add_message(self, said: Message, deliveries: Mapping[str, tuple[str, str]]) -> Answer[Accepted]:
        """Store a message, whose seq is given here, and the first (step, reason) of each recipient.

        It has its place in the order at once; await the answer, which comes after COMMIT, or drop it: then a failure is
        only logged. Raises CspError: "busy" at once, "duplicate-message" or "storage" from the answer.
        """
        self._check_room()
        accepted = Accepted(
            seq=self._cursor(),
            message_id=clean(said.message_id),
            room=clean(said.room),
            sender=clean(said.sender),
            to=clean(said.to) if isinstance(said.to, str) else tuple(map(clean, said.to)),
            content=clean(said.content),
            meta=dict(said.meta),
            ts=said.ts,
            kind=said.kind,
            deliveries={name: Delivery(name, step, clean(why), said.ts) for name, (step, why) in deliveries.items()},
        )
        return self._enqueue(accepted)

    async def add_step(
        self, seq: int, agent: str, step: str, reason: str, evidence: str, ts: float, answer: str = ""
    ) -> Event:
        """Move one delivery of message `seq` on. `answer`: what the agent said in the turn that has ended; only the
        event has it. Raises CspError: "no-such-message", "storage", "busy"."""
        event = self._step(seq, agent, step, reason, evidence, ts, answer)
        return await self._enqueue(partial(inserts.insert_step, event=event))

    def add_step_nowait(self, seq: int, agent: str, step: str, reason: str, evidence: str, ts: float) -> Event:
        """Like `add_step`, without waiting: a failure is only logged. The room and the message id are only in
        the event that comes to `on_commit`. Raises CspError("busy") when the queue is full."""
        event = self._step(seq, agent, step, reason, evidence, ts)
        self._enqueue(partial(inserts.insert_step, event=event))
        return event

    def add_event(
        self, type: str, room: str, agent: str, data: Mapping[str, Any], ts: float, seq: int | None = None
    ) -> Awaitable[Event]:
        """Store any other event; like `add_message`. Raises CspError: "storage", "busy"."""
        self._check_room()
        event = Event(self._cursor(), ts, type, clean(room), clean(agent), seq, dict(data))
        return self._enqueue(partial(inserts.insert_event, event=event))

    def set_member(self, room: str, agent: str, present: bool) -> Answer[None]:
        """Like `add_message`."""
        pair = (clean(room), clean(agent))
        return self._enqueue(partial(schema.set_pair, table="member", pair=pair, present=present))

    def set_paused(self, scope: str, name: str, paused: bool) -> Answer[None]:
        """`scope` is "agent" or "room". Like `add_message`."""
        pair = (scope, clean(name))
        return self._enqueue(partial(schema.set_pair, table="paused", pair=pair, present=paused))

    def keep(self, name: str, value: object) -> Awaitable[None]:
        """Keep a small state, a value of JSON, under this name; None ends that. Like `add_message`."""
        return self._enqueue(partial(kept.put_kept, name=clean(name), value=value))

    async def keep_guest(self, guest: GuestRecord) -> None:
        await self._enqueue(partial(guestbook.put_guest, guest=guest))

    async def forget_guest(self, name: str) -> None:
        await self._enqueue(partial(guestbook.delete_guest, name=clean(name)))

    async def forget(self, before_ts: float) -> int:
        """Delete one slice of what is older than `before_ts`; returns its size. Call until it is 0."""
        count, self.forgotten_cursor = await self._enqueue(partial(schema.forget, before_ts=before_ts))
        return count

    async def add_token(self, token: TokenRecord) -> None:
        await self._enqueue(partial(tokenbook.insert_token, token=token))

    async def remove_tokens(self, hashes: Collection[str]) -> None:
        await self._enqueue(partial(tokenbook.delete_tokens, hashes=hashes))

    # Reading: in threads of their own; a cancelled one stops

    async def messages(
        self,
        *,
        room: str | None = None,
        limit: int = 50,
        since: int | None = None,
        before: int | None = None,
        sender: str | None = None,
        to: str | None = None,
        grep: str | None = None,
        kinds: Collection[str] | None = None,
    ) -> list[Story]:
        """Messages with their deliveries, oldest first: the first `limit` after `since`, else the last.

        `to` finds what was delivered to that name or addressed to that word ("human", "broadcast"). `grep`
        finds the text anywhere in the content, also within words; letters match in either case (beyond ASCII
        only from three characters on); nothing in it is special.
        """
        asked = {
            **{"room": room, "since": since, "before": before, "sender": sender, "to": to},
            **{"kinds": None if kinds is None else json.dumps(list(kinds))},
            **(schema.grep_terms(grep) if grep else {}),
        }
        taken = {name: sound(value) for name, value in asked.items()}
        return await self._read(partial(schema.select_messages, limit=sound(max(0, limit)), asked=taken))

    async def message(self, message_id: str) -> tuple[Message, dict[str, Delivery], list[Event]]:
        """One message, where it stands, and all events about it; the first six characters of its id may do.

        Raises CspError: "no-such-message", "ambiguous-message".
        """
        return await self._read(partial(schema.select_message, message_id=clean(message_id)))

    async def events(self, since: int, limit: int, room: str | None = None) -> list[Event]:
        """The first `limit` events after cursor `since`, equal to those that were live (`as_event`)."""
        return await self._read(
            partial(schema.select_events, since=sound(since), limit=sound(max(0, limit)), room=sound(room))
        )

    async def pending(self, agent: str) -> list[tuple[Message, Delivery]]:
        """What still waits for `agent`, in order."""
        return await self._read(partial(schema.select_pending, agent=clean(agent)))

    async def tally(self) -> dict[str, int]:
        """Room -> how many messages were said in it."""
        return await self._read(schema.select_tally)

    async def members(self) -> dict[str, list[str]]:
        """Room -> its members, by name."""
        return await self._read(schema.select_members)

    async def paused(self) -> set[tuple[str, str]]:
        """(scope, name) of everything paused."""
        return await self._read(schema.select_paused)

    async def kept(self) -> dict[str, Any]:
        """What `keep` was given, by name."""
        return await self._read(kept.select_kept)

    async def guests(self) -> list[GuestRecord]:
        """Oldest first."""
        return await self._read(guestbook.select_guests)

    async def tokens(self) -> list[TokenRecord]:
        """Oldest first."""
        return await self._read(tokenbook.select_tokens)

    async def _read(self, select: Callable[[sqlite3.Connection], T]) -> T:
        unwanted: list[bool] = []
        try:
            read = partial(_read_blocking, self.path, self._busy_sec, select, lambda: bool(unwanted))
            return await trio.to_thread.run_sync(read, limiter=self._readers, abandon_on_cancel=True)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        finally:
            unwanted.append(True)  # a thread that still reads was abandoned by a cancellation

    def _failure(self, error: sqlite3.Error) -> CspError:
        if schema.is_damage(error):
            self.damaged.set()
        return _storage_error(self.path, error)

    # The queue and its writer

    def _step(self, seq: int, agent: str, step: str, reason: str, evidence: str, ts: float, answer: str = "") -> Event:
        self._check_room()
        data = {"step": step, "reason": clean(reason), "evidence": clean(evidence)}
        data |= {"answer": clean(answer)} if answer else {}
        return Event(self._cursor(), ts, "delivery", "", clean(agent), seq, data)

    def _cursor(self) -> int:
        cursor, self.next_cursor = self.next_cursor, self.next_cursor + 1
        return cursor

    def _check_room(self) -> None:
        # before a cursor is taken, so that a refusal leaves no gap
        if not self._open:
            raise CspError("stopping", f"history: {self.path}: closed", "send it again when cspd runs again")
        if len(self._queue) >= QUEUE_MAX:
            raise CspError("busy", f"history: {self.path}: {QUEUE_MAX} records wait for the disk", "try later")

    @overload
    def _enqueue(self, write: Accepted) -> Answer[Accepted]: ...
    @overload
    def _enqueue(self, write: Write[T]) -> Answer[T]: ...
    def _enqueue(self, write: Accepted | Write[Any]) -> Answer[Any]:
        self._check_room()
        append: _Append[Any] = _Append(write)  # _Append[Any](...) takes five times as long
        self._queue.append(append)
        self._wake.set()
        return append.answer

    def _stop(self) -> None:
        self._open = False
        self._wake.set()

    async def _write(self) -> None:
        # Shielded whole, and ended by _stop() alone: users further in may append in their cancelled cleanup.
        with trio.CancelScope(shield=True):
            try:
                while self._open or self._queue:
                    await self._wake.wait()
                    self._wake = trio.Event()
                    if self._queue:
                        await self._commit()
            finally:
                self._fail_queued()

    async def _commit(self) -> None:
        batch, self._queue = self._queue, []
        reached = self.next_cursor - 1
        try:
            await trio.to_thread.run_sync(_commit_blocking, self._db, batch, limiter=self._writer)
            self.commits += 1
        except sqlite3.Error as error:
            for append in batch:
                append.outcome = self._failure(error)
        self.committed_cursor = reached
        written = [a.outcome for a in batch if isinstance(a.outcome, Record)]
        try:
            if written and self._on_commit:
                self._on_commit(written)
        finally:
            for append in batch:
                append.settle()

    def _fail_queued(self) -> None:
        # empty unless on_commit raised: then nobody may wait for ever on the way down
        self._open = False
        for append in self._queue:
            append.outcome = CspError("stopping", f"history: {self.path}: closed before it was written")
            append.settle()


def _commit_blocking(db: sqlite3.Connection, batch: Sequence[_Append[Any]]) -> None:
    """Write the batch in one transaction, whole or not at all."""
    db.execute("begin immediate")
    try:
        said = [(append, append.write) for append in batch if isinstance(append.write, Accepted)]
        stored = inserts.insert_messages(db, [message for _, message in said])
        for (append, _), outcome in zip(said, stored, strict=True):
            append.outcome = outcome
        for append in batch:  # nothing of it can be meant to go before a message that came behind it
            if not isinstance(append.write, Accepted):
                append.outcome = append.write(db)
        db.execute("commit")
    except BaseException:
        if db.in_transaction:  # on a full disk SQLite has rolled back already
            db.execute("rollback")
        raise


def _read_blocking(
    path: Path, busy_sec: float, select: Callable[[sqlite3.Connection], T], unwanted: Callable[[], bool]
) -> T:
    # A connection for each read costs a fraction of a millisecond and has no pool to keep right.
    with closing(schema.connect(path, busy_sec)) as db:
        # asked again and again, because interrupt() is lost when it comes just before a statement begins
        db.set_progress_handler(unwanted, ASK_EVERY)
        db.execute("pragma query_only=on")
        db.execute("begin")  # one picture, though messages and deliveries are two queries
        return select(db)


def _storage_error(path: Path, error: sqlite3.Error | OSError) -> CspError:
    code = sqlite3.SQLITE_CANTOPEN if isinstance(error, OSError) else schema.error_code(error)
    return CspError("storage", f"history: {path}: {error}", HINTS.get(code, "see cspctl logs"))
