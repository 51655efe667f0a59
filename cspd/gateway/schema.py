"""The file history.db, and the SQL that reads what is in it and lets go of it; plain blocking SQLite.

What a commit adds is `inserts`. When and in which thread something is read or written is decided by `history`; what a
step means, by `room` and `inbox`.
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
from cspd.gateway.inserts import INDEX, TALLY, clean, dump, insert_event
from cspd.gateway.records import Delivery, Event, Message, Story, message_json
from cspd.gateway.tables import IS_OPEN, TABLES, UPGRADES, VERSION
from cspd.paths import make_private_dir

OPEN_STEPS = ("accepted", "held", "typing", "echoed")  # every other step is final
CHECK_MAX = 256 << 20  # bytes; checking costs about 0.5 s a GB from a warm cache, too long for a restart in a second
INT_MAX = (1 << 63) - 1
PREFIX_MIN = 6  # characters of a message id that may stand for the whole
WAL_PAGES = 4000  # 16 MB: written back less often, so that fewer commits wait for it; read again in 20 ms after a crash
FORGET_SLICE = 1000  # rows deleted in one transaction, so that appends never wait long behind retention


def open_database(path: Path, busy_sec: float, damaged: bool = False) -> tuple[sqlite3.Connection, Path | None]:
    """The writer's connection, and where a damaged file was set aside, if there was one. `damaged`: it is known to be.

    Raises sqlite3.Error, OSError, or CspError for a file of a newer version.
    """
    make_private_dir(path.parent)
    if not damaged:
        try:
            return _open(path, busy_sec), None
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
    aside = _set_aside(path)
    db = _open(path, busy_sec)
    _begin_behind(db, aside)
    _carry_over(db, aside)
    return db, aside


def is_damage(error: sqlite3.Error) -> bool:
    return error_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


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
        db.execute(f"pragma wal_autocheckpoint={WAL_PAGES}")
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


CARRIED = (
    f"""insert into message select * from damaged.message
       where seq in (select seq from damaged.delivery where {IS_OPEN})""",
    f"insert into delivery select * from damaged.delivery where {IS_OPEN} and seq in (select seq from message)",
    *(f"insert into {table} select * from damaged.{table}" for table in ("member", "paused", "guest", "kept", "token")),
)


def _carry_over(db: sqlite3.Connection, aside: Path) -> None:
    """What still waits to be typed, and who is known, as far as the damaged file gives it whole."""
    try:
        db.execute("attach ? as damaged", (str(aside),))
    except sqlite3.Error:
        return  # it is no database any more
    for statement in CARRIED:
        try:
            db.execute(statement)
        except sqlite3.Error:
            pass  # of an older version, or just where it is damaged; SQLite takes back what it has inserted
    db.execute("detach damaged")
    for statement in (INDEX, TALLY):
        db.execute(statement, (0,))


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
    gone, which = "from message where seq in (select value from json_each(?))", (dump(seqs),)
    db.execute(f"insert into message_fts(message_fts, rowid, content) select 'delete', seq, content {gone}", which)
    for counted in db.execute(f"select count(*), room, kind {gone} group by room, kind", which).fetchall():
        db.execute("update tally set n = n - ? where room = ? and kind = ?", counted)
    db.execute(f"delete {gone}", which)


_TERMS: Mapping[str, str] = {
    "room": "room = :room",
    "since": "{seq} > :since",
    "before": "{seq} < :before",
    "sender": "sender = :sender",
    # delivered to, or addressed in that very word ("human", "broadcast"); json_each of a string is one row
    "to": """(exists (select 1 from delivery d where d.seq = message.seq and d.agent = :to)
             or exists (select 1 from json_each(recipients) where value = :to))""",
    "kinds": "kind in (select value from json_each(:kinds))",
    "phrase": "message_fts match :phrase",
    "part": "instr(lower(content), lower(:part)) > 0",  # not `like`: nothing to escape
}


def sound(value: Any) -> Any:
    """A term of a query as SQLite can take it: numbers have 64 bits there."""
    if isinstance(value, int):
        return max(-INT_MAX, min(INT_MAX, value))
    return clean(value) if isinstance(value, str) else value


def select_messages(db: sqlite3.Connection, limit: int, asked: Mapping[str, str | int | None]) -> list[Story]:
    """Oldest first: the first `limit` after `since`, else the last. `asked` has keys of _TERMS."""
    given = {name: value for name, value in asked.items() if value is not None}
    # The index gives what it finds in the order asked for: of a common text only the newest few are looked at.
    by_text = "message_fts cross join message on seq = message_fts.rowid", "message_fts.rowid"
    source, seq = by_text if "phrase" in given else ("message", "seq")
    where = " and ".join(_TERMS[name].format(seq=seq) for name in given) or "true"
    order = "asc" if "since" in given else "desc"
    query = f"select message.* from {source} where {where} order by {seq} {order} limit :limit"
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
        hint = f"{few}cspctl history --ids shows them"
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
    for seq, agent, step, reason, ts in db.execute(query, (dump(list(stories)),)):
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
