"""What lies in history.db: records, and all SQL that writes or reads them; plain blocking SQLite.

Messages, steps and events share one cursor space: a message's `seq` is the cursor of its own event. When and
in which thread something is written is decided by `history`; what a step means, by `room` and `inbox`.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from cspd.errors import CspError
from cspd.gateway.tables import IS_OPEN, TABLES, UPGRADES, VERSION
from cspd.paths import make_private_dir

OPEN_STEPS = ("accepted", "held", "typing", "echoed")  # every other step is final
CHECK_MAX = 256 << 20  # bytes; checking costs about 0.5 s a GB from a warm cache, too long for a restart in a second
PREFIX_MIN = 6  # characters of a message id that may stand for the whole
FORGET_SLICE = 1000  # rows deleted in one transaction, so that appends never wait long behind retention


@attrs.frozen
class Delivery:
    """Where a message stands with one recipient."""

    agent: str
    step: str
    reason: str
    ts: float


@attrs.frozen
class Message:
    """Said in a room; `to` is as the sender gave it, `kind` is message, input (a person's line) or system."""

    seq: int
    message_id: str
    room: str
    sender: str
    to: str | tuple[str, ...]
    content: str
    meta: Mapping[str, Any]
    ts: float
    kind: str


@attrs.frozen
class Accepted(Message):
    """A message at the moment it went to disk, with the first delivery of every recipient."""

    deliveries: Mapping[str, Delivery]


@attrs.frozen
class Event:
    """Something that happened; `seq` is the message it is about."""

    cursor: int
    ts: float
    type: str
    room: str
    agent: str
    seq: int | None
    data: Mapping[str, Any]


Record = Event | Accepted
Story = tuple[Message, dict[str, Delivery]]


def message_json(m: Message, deliveries: Mapping[str, Delivery]) -> dict[str, Any]:
    """The message as people and programs see it."""
    to = m.to if isinstance(m.to, str) else list(m.to)
    head = {"seq": m.seq, "message_id": m.message_id, "room": m.room, "from": m.sender, "to": to}
    body = {"content": m.content, "meta": dict(m.meta), "ts": m.ts, "kind": m.kind}
    return head | body | {"deliveries": deliveries_json(deliveries)}


def deliveries_json(deliveries: Mapping[str, Delivery]) -> dict[str, Any]:
    return {d.agent: {"step": d.step, "reason": d.reason, "ts": d.ts} for d in deliveries.values()}


def as_event(m: Record) -> Event:
    """Any record as the event that subscribers get: live and replayed ones are equal."""
    if isinstance(m, Event):
        return m
    return Event(m.seq, m.ts, "message", m.room, m.sender, m.seq, message_json(m, m.deliveries))


def open_database(path: Path, busy_sec: float) -> tuple[sqlite3.Connection, Path | None]:
    """The writer's connection, and where a damaged file was set aside, if there was one.

    Raises sqlite3.Error, OSError, or CspError for a file of a newer version.
    """
    make_private_dir(path.parent)
    try:
        return _open(path, busy_sec), None
    except sqlite3.DatabaseError as error:
        if error_code(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
    aside = _set_aside(path)
    db = _open(path, busy_sec)
    _begin_behind(db, aside)
    return db, aside


def connect(path: Path, busy_sec: float) -> sqlite3.Connection:
    # isolation_level=None: transactions are ours to begin; threads may differ, only one at a time uses it
    return sqlite3.connect(path, timeout=busy_sec, isolation_level=None, check_same_thread=False)


def _open(path: Path, busy_sec: float) -> sqlite3.Connection:
    # before SQLite makes it with the umask's mode; -wal and -shm take over the mode of the file
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    db = connect(path, busy_sec)
    try:
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")  # in WAL mode only this survives a power cut after COMMIT
        db.execute("pragma foreign_keys=on")
        _make_tables(db, path)
        _check(db, path)
        return db
    except BaseException:
        db.close()
        raise


def _make_tables(db: sqlite3.Connection, path: Path) -> None:
    db.execute("begin immediate")
    version = db.execute("pragma user_version").fetchone()[0]
    if version > VERSION:
        why = f"schema {version} of a newer csp, this one knows {VERSION}"
        raise CspError("storage", f"history: {path}: {why}", "install that csp, or move the file away")
    steps = (TABLES, *UPGRADES)  # a step is the way to the version of its number, from 1
    for statements in steps[version:]:
        for statement in statements:
            db.execute(statement)
    if version < VERSION:
        db.execute(f"pragma user_version={VERSION}")
    db.execute("commit")


def _check(db: sqlite3.Connection, path: Path) -> None:
    if path.stat().st_size > CHECK_MAX:
        return
    (verdict,) = db.execute("pragma quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT  # as if SQLite had stumbled over it itself
        raise error


def error_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _set_aside(path: Path) -> Path:
    """Rename the file and its companions to the first free `history.db.corrupt-N`."""
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    # the database last: after a crash half-way the next open comes here again
    for suffix in ("-shm", "-wal", ""):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    return aside


def _begin_behind(db: sqlite3.Connection, aside: Path) -> None:
    """Let the new cursors begin above those of the lost file, or returning clients would wait in vain.

    Seconds since 1970 are above any count of events that happen less than once a second on average.
    """
    event = Event(int(time.time()), time.time(), "history", "", "", None, {"quarantined": str(aside)})
    insert_event(db, event)
    db.execute("update forgotten set cursor = ?", (event.cursor - 1,))


# Writing: each call is one row of a transaction that the caller has begun. A refusal is returned, not raised,
# and comes before anything of it is written, so the other rows of the transaction need not suffer for it.


def insert_message(db: sqlite3.Connection, m: Accepted) -> Accepted | CspError:
    row = (m.seq, m.message_id, m.room, m.sender, _dump(m.to), m.content, _dump(m.meta), m.kind, m.ts)
    insert = "insert into message values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict(message_id) do nothing"
    if not db.execute(insert, row).rowcount:
        return CspError("duplicate-message", f"message: {m.message_id}: stored before", "use a new id")
    for d in m.deliveries.values():
        db.execute("insert into delivery values (?, ?, ?, ?, ?)", (m.seq, d.agent, d.step, d.reason, d.ts))
    first = {"deliveries": deliveries_json(m.deliveries)}  # the rows move on, this keeps where they began
    insert_event(db, Event(m.seq, m.ts, "message", m.room, m.sender, m.seq, first))
    return m


INDEX = "insert into message_fts(rowid, content) select seq, content from message where seq >= ?"
# "not indexed": by seq; SQLite would go through all of the index that has them by room
TALLY = """insert into tally select room, kind, count(*) from message not indexed where seq >= ? group by room, kind
           on conflict(room, kind) do update set n = n + excluded.n"""


def finish_messages(db: sqlite3.Connection, first: int) -> None:
    """Index and count the messages from `first` on: the last thing in a transaction that has inserted some."""
    db.execute(INDEX, (first,))
    db.execute(TALLY, (first,))


def insert_event(db: sqlite3.Connection, event: Event) -> Event:
    db.execute(
        "insert into event values (?, ?, ?, ?, ?, ?, ?)",
        (event.cursor, event.ts, event.type, event.room, event.agent, event.seq, _dump(event.data)),
    )
    return event


def insert_step(db: sqlite3.Connection, event: Event) -> Event | CspError:
    """Move one delivery on; returns the event completed with the room and id of its message."""
    found = db.execute("select room, message_id from message where seq = ?", (event.seq,)).fetchone()
    if found is None:
        return CspError("no-such-message", f"message: seq {event.seq}: not in the history")
    room, message_id = found
    db.execute(
        """insert into delivery values (?, ?, ?, ?, ?) on conflict(seq, agent) do update
           set step = excluded.step, reason = excluded.reason, ts = excluded.ts""",
        (event.seq, event.agent, event.data["step"], event.data["reason"], event.ts),
    )
    return insert_event(db, attrs.evolve(event, room=room, data={"message_id": message_id, **event.data}))


def set_pair(db: sqlite3.Connection, table: str, pair: tuple[str, str], present: bool) -> None:
    """Put (room, agent) into `member`, or (scope, name) into `paused`, or take it out."""
    columns = {"member": "room, agent", "paused": "scope, name"}[table]
    if present:
        db.execute(f"insert or ignore into {table} values (?, ?)", pair)
    else:
        db.execute(f"delete from {table} where ({columns}) = (?, ?)", pair)


def forget(db: sqlite3.Connection, before_ts: float) -> tuple[int, int]:
    """Delete up to FORGET_SLICE records older than `before_ts`: -> how many, and the highest cursor ever deleted.

    Stays: what still waits for somebody, and the newest event, from which the cursors go on after a restart.
    """
    rows = db.execute(
        f"""select cursor, type from event where ts < ? and cursor < (select max(cursor) from event)
            and not exists (select 1 from delivery where delivery.seq = event.seq and {IS_OPEN})
            order by cursor limit ?""",
        (before_ts, FORGET_SLICE),
    ).fetchall()
    _delete_messages(db, [cursor for cursor, type_ in rows if type_ == "message"])
    db.executemany("delete from event where cursor = ?", [(c,) for c, _ in rows])
    if rows:
        db.execute("update forgotten set cursor = max(cursor, ?)", (rows[-1][0],))
    return len(rows), forgotten_cursor(db)


def _delete_messages(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    gone, which = "from message where seq in (select value from json_each(?))", (_dump(seqs),)
    db.execute(f"insert into message_fts(message_fts, rowid, content) select 'delete', seq, content {gone}", which)
    for counted in db.execute(f"select count(*), room, kind {gone} group by room, kind", which).fetchall():
        db.execute("update tally set n = n - ? where room = ? and kind = ?", counted)
    db.execute(f"delete {gone}", which)


_TERMS: Mapping[str, str] = {
    "room": "room = :room",
    "since": "seq > :since",
    "before": "seq < :before",
    "sender": "sender = :sender",
    # delivered to, or addressed in that very word ("human", "broadcast"); json_each of a string is one row
    "to": """(exists (select 1 from delivery d where d.seq = message.seq and d.agent = :to)
             or exists (select 1 from json_each(recipients) where value = :to))""",
    "kinds": "kind in (select value from json_each(:kinds))",
    "phrase": "seq in (select rowid from message_fts where message_fts match :phrase)",
    "part": "instr(lower(content), lower(:part)) > 0",  # not `like`: nothing to escape
}


def select_messages(db: sqlite3.Connection, limit: int, asked: Mapping[str, str | int | None]) -> list[Story]:
    """Oldest first: the first `limit` after `since`, else the last. `asked` has keys of _TERMS."""
    given = {name: value for name, value in asked.items() if value is not None}
    where = " and ".join(_TERMS[name] for name in given) or "true"
    order = "asc" if "since" in given else "desc"
    query = f"select * from message where {where} order by seq {order} limit :limit"
    return _stories(db, sorted(db.execute(query, {**given, "limit": limit})))


def grep_terms(text: str) -> dict[str, str]:
    """How to find `text` anywhere in the content, quickly if possible; nothing in it is syntax."""
    # A phrase in quotes has no syntax but the quote itself. A NUL would end the phrase early, and below three
    # characters there is no trigram: then every row is looked at.
    if len(text) < 3 or "\0" in text:
        return {"part": text}
    return {"phrase": '"' + text.replace('"', '""') + '"'}


def select_message(db: sqlite3.Connection, message_id: str) -> tuple[Message, dict[str, Delivery], list[Event]]:
    rows = db.execute("select * from message where message_id = ?", (message_id,)).fetchall()
    if not rows and len(message_id) >= PREFIX_MIN:
        query = "select * from message where message_id > ? and message_id < ? limit 2"
        rows = db.execute(query, (message_id, message_id + "\U0010ffff")).fetchall()
    if not rows:
        few = f"at least {PREFIX_MIN} characters; " if len(message_id) < PREFIX_MIN else ""
        hint = f"{few}cspctl history --json shows the ids"
        raise CspError("no-such-message", f"message: {message_id}: not in the history", hint)
    if len(rows) > 1:
        raise CspError("ambiguous-message", f"message: {message_id}: several ids begin so", "give more of it")
    ((message, deliveries),) = _stories(db, rows)
    events = db.execute("select * from event where seq = ? order by cursor", (message.seq,)).fetchall()
    return message, deliveries, [_event(row) for row in events]


def select_events(db: sqlite3.Connection, since: int, limit: int, room: str | None) -> list[Event]:
    rows = db.execute(
        """select e.*, m.* from event e left join message m on m.seq = e.cursor and e.type = 'message'
           where e.cursor > ? and (? is null or e.room = ?) order by e.cursor limit ?""",
        (since, room, room, limit),
    ).fetchall()
    return [_replayed(row) for row in rows]


def select_pending(db: sqlite3.Connection, agent: str) -> list[tuple[Message, Delivery]]:
    rows = db.execute(
        f"""select m.*, d.agent, d.step, d.reason, d.ts from delivery d join message m using(seq)
            where d.agent = ? and d.{IS_OPEN} order by d.seq""",
        (agent,),
    ).fetchall()
    return [(_message(row), Delivery(*row[9:])) for row in rows]


def select_tally(db: sqlite3.Connection) -> dict[str, int]:
    """Room -> messages in it, without a look at the messages."""
    return dict(db.execute("select room, n from tally where kind = 'message'").fetchall())


def select_members(db: sqlite3.Connection) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for room, agent in db.execute("select room, agent from member order by room, agent"):
        members.setdefault(room, []).append(agent)
    return members


def select_paused(db: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(db.execute("select scope, name from paused").fetchall())


def last_cursor(db: sqlite3.Connection) -> int:
    return int(db.execute("select max(cursor) from event").fetchone()[0] or 0)


def forgotten_cursor(db: sqlite3.Connection) -> int:
    """The highest cursor that was ever deleted; 0 when none was."""
    return int(db.execute("select cursor from forgotten").fetchone()[0])


def _stories(db: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> list[Story]:
    stories = {row[0]: (_message(row), dict[str, Delivery]()) for row in rows}
    query = "select * from delivery where seq in (select value from json_each(?)) order by seq, agent"
    for seq, agent, step, reason, ts in db.execute(query, (_dump(list(stories)),)):
        stories[seq][1][agent] = Delivery(agent, step, reason, ts)
    return list(stories.values())


def _message(row: tuple[Any, ...]) -> Message:
    seq, message_id, room, sender, recipients, content, meta, kind, ts = row[:9]
    to = json.loads(recipients)
    to = to if isinstance(to, str) else tuple(to)
    return Message(seq, message_id, room, sender, to, content, json.loads(meta), ts, kind)


def _event(row: tuple[Any, ...]) -> Event:
    cursor, ts, type_, room, agent, seq, data = row[:7]
    return Event(cursor, ts, type_, room, agent, seq, json.loads(data))


def _replayed(row: tuple[Any, ...]) -> Event:
    event, rest = _event(row), row[7:]
    if rest[0] is None:
        return event
    first = {agent: Delivery(agent, **d) for agent, d in event.data["deliveries"].items()}
    return attrs.evolve(event, data=message_json(_message(rest), first))


def _dump(value: object) -> str:
    # ASCII: half surrogate pairs stay escaped, SQLite could not hold them
    return json.dumps(value, separators=(",", ":"))
