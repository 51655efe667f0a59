"""SQL of what a commit adds to history.db: messages, steps of their deliveries, events; plain blocking SQLite.

A refusal is returned, not raised, and comes before anything of it is written, so that the rest of the transaction need
not suffer for it. The messages of a transaction go together: what each statement costs is counted at its place.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from cspd.errors import CspError
from cspd.gateway.records import Accepted, Event, deliveries_json

ROWS = (64, 16, 4, 1)  # of one statement; few sizes, so that SQLite has them prepared

INDEX = "insert into message_fts(rowid, content) select seq, content from message where seq >= ?"
# "not indexed": by seq; SQLite would go through all of the index that has them by room
TALLY = """insert into tally select room, kind, count(*) from message not indexed where seq >= ? group by room, kind
           on conflict(room, kind) do update set n = n + excluded.n"""

Row = tuple[Any, ...]
dump = json.JSONEncoder(separators=(",", ":")).encode  # ASCII: half surrogate pairs stay escaped, SQLite has no such


def insert_messages(db: sqlite3.Connection, messages: Sequence[Accepted]) -> list[Accepted | CspError]:
    """All messages of a transaction, in order of their seq: stored, or "duplicate-message" for an id that was there."""
    rows = [
        (m.seq, m.message_id, m.room, m.sender, dump(m.to), m.content, dump(m.meta), m.kind, m.ts) for m in messages
    ]
    stored = _insert_new(db, rows)
    new = [m for m in messages if m.seq in stored]
    _insert(db, "delivery", [(m.seq, d.agent, d.step, d.reason, d.ts) for m in new for d in m.deliveries.values()])
    _insert(db, "event", [_row(_beginning(m)) for m in new])
    if new:
        db.execute(INDEX, (new[0].seq,))
        db.execute(TALLY, (new[0].seq,))
    return [m if m.seq in stored else _duplicate(m) for m in messages]


def clean(text: str) -> str:
    """`text` as SQLite can hold it: JSON may carry half a surrogate pair, which is no character at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _beginning(m: Accepted) -> Event:
    """The rows of its deliveries move on, this keeps where they began."""
    return Event(m.seq, m.ts, "message", m.room, m.sender, m.seq, {"deliveries": deliveries_json(m.deliveries)})


def _duplicate(m: Accepted) -> CspError:
    return CspError("duplicate-message", f"message: {m.message_id}: stored before", "use a new id")


def _insert_new(db: sqlite3.Connection, messages: Sequence[Row]) -> set[int]:
    """-> the seq of those whose id is new."""
    stored: set[int] = set()
    for statement, rows in _statements("message", messages):
        seqs = [row[0] for row in rows]
        if db.execute(f"{statement} on conflict(message_id) do nothing", _flat(rows)).rowcount < len(rows):
            here = db.execute("select seq from message where seq in (select value from json_each(?))", (dump(seqs),))
            seqs = [seq for (seq,) in here.fetchall()]
        stored.update(seqs)
    return stored


def _insert(db: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    for statement, part in _statements(table, rows):
        db.execute(statement, _flat(part))


def _statements(table: str, rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
    """Many rows by one statement. After each the thread waits for the interpreter's lock, which the event loop has."""
    at = 0
    while at < len(rows):
        count = next(size for size in ROWS if size <= len(rows) - at)
        places = f"({', '.join('?' * len(rows[at]))})"
        yield f"insert into {table} values {', '.join([places] * count)}", rows[at : at + count]
        at += count


def _flat(rows: Sequence[Row]) -> list[Any]:
    return [value for row in rows for value in row]


def _row(event: Event) -> Row:
    return (event.cursor, event.ts, event.type, event.room, event.agent, event.seq, dump(event.data))


def insert_event(db: sqlite3.Connection, event: Event) -> Event:
    _insert(db, "event", [_row(event)])
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
