"""The tables of history.db, by the version that made them. What was released is never changed, only added to. Pure."""

IS_OPEN = "step in ('accepted', 'held', 'typing', 'echoed')"  # the same text as in the index, or it is not used

# Version 1.
TABLES = (
    """create table event(cursor integer primary key, ts real not null, type text not null,
       room text not null, agent text not null, seq integer, data text not null)""",
    """create table message(seq integer primary key, message_id text not null unique, room text not null,
       sender text not null, recipients text not null, content text not null, meta text not null,
       kind text not null, ts real not null)""",
    """create table delivery(seq integer not null references message on delete cascade, agent text not null,
       step text not null, reason text not null, ts real not null, primary key(seq, agent)) without rowid""",
    "create table member(room text not null, agent text not null, primary key(room, agent)) without rowid",
    "create table paused(scope text not null, name text not null, primary key(scope, name)) without rowid",
    "create index event_seq on event(seq) where seq is not null",
    "create index message_room on message(room, seq, kind)",
    f"create index delivery_open on delivery(agent, seq) where {IS_OPEN}",
    # trigrams: substrings of three or more characters by index, in any script
    """create virtual table message_fts using fts5(content, content='message', content_rowid='seq',
       tokenize='trigram')""",
    """create trigger message_added after insert on message begin
       insert into message_fts(rowid, content) values (new.seq, new.content); end""",
    """create trigger message_removed after delete on message begin
       insert into message_fts(message_fts, rowid, content) values ('delete', old.seq, old.content); end""",
)

# What later versions added, in order: the first takes a file of version 1 to version 2. Only ever added to.
UPGRADES: tuple[tuple[str, ...], ...] = (
    (
        """create table guest(name text primary key, room text not null, capabilities text not null,
           local integer not null, ts real not null) without rowid""",
    ),
    (
        # the highest cursor that `forget` has deleted: whoever asks for what came behind a lower one missed something
        "create table forgotten(cursor integer not null)",
        "insert into forgotten values (0)",
        # `hash`: SHA-256 in hex of what the agent holds
        "create table token(hash text primary key, agent text not null, made_ts real not null) without rowid",
    ),
    (
        # small states of the pure cores, whole and as JSON: what the loop guard has stopped, whose turn it is in a room
        "create table kept(name text primary key, value text not null) without rowid",
    ),
    (
        # FTS5 writes out what it has collected before every statement that fires a trigger, which made it two thirds of
        # a message's cost: `schema` indexes all messages of a transaction by one statement, and counts them.
        "drop trigger message_added",
        "drop trigger message_removed",
        "create table tally(room text not null, kind text not null, n integer not null, primary key(room, kind))"
        " without rowid",
        "insert into tally select room, kind, count(*) from message group by room, kind",
    ),
)
VERSION = 1 + len(UPGRADES)
