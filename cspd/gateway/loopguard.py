"""Whether an agent's message may go on, or waits for a person's word: loops, storms, repetitions. Pure.

A limit that is exceeded makes a `Stop`, which holds what it names until a person lets it go. Who is told, and what
becomes of the messages, is `moderator`'s.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any

import attrs

from cspd.gateway.chain import Chain

MINUTE_SEC = 60.0
REPEATS = 3  # times that the same text may go to the same agent within a minute
DIRECT_HOPS = 1  # of an answer to a person: nobody who was asked himself is silent because others go in circles
CHAINS_MAX = 1024  # that are remembered; those before have long come to rest


@attrs.frozen
class Limits:
    """The table loop_guard of cspd.toml."""

    max_hops: int = 12
    max_messages: int = 60
    pair_per_min: int = 20
    agent_per_min: int = 30
    room_per_min: int = 120


@attrs.frozen
class Utterance:
    """An agent's message, as far as the guard looks at it. `digest` is equal for equal texts."""

    sender: str
    recipients: tuple[str, ...]
    room: str
    chain: Chain
    digest: str
    ts: float


def digest_of(content: str) -> str:
    """Equal for texts that differ in blanks and capitals only; the same in every process."""
    return sha256(" ".join(content.casefold().split()).encode("utf-8", "replace")).hexdigest()[:16]


@attrs.frozen
class Stop:
    """What is held: a chain (`key`: its root), an agent, a pair, a member of a room, or a text that is repeated."""

    kind: str
    key: tuple[str, ...]
    room: str
    names: tuple[str, ...]  # sorted; the agents whose messages wait, and those for whom they wait
    why: str
    ts: float

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Stop":
        return cls(**{**kept, "key": tuple(kept["key"]), "names": tuple(kept["names"])})


@attrs.frozen
class Verdict:
    """`held`: the recipients who do not get the message now. `stops`: those that are new, or hold more than before."""

    held: frozenset[str] = frozenset()
    stops: tuple[Stop, ...] = ()


@attrs.define
class Recent:
    """Who, or what, was counted within the last minute.

    Exact, because a bucket that fills up while it is emptied lets twice the limit pass in its first minute.
    """

    _entries: deque[tuple[float, str]] = attrs.Factory(deque)

    def count(self, now: float, who: str | None = None) -> int:
        while self._entries and self._entries[0][0] <= now - MINUTE_SEC:
            self._entries.popleft()
        return len(self._entries) if who is None else sum(1 for _, each in self._entries if each == who)

    def counted(self) -> set[str]:
        return {who for _, who in self._entries}

    def add(self, now: float, who: str) -> None:
        self.count(now)  # lets go of what is too old
        self._entries.append((now, who))

    def drop(self, who: str) -> None:
        self._entries = deque(entry for entry in self._entries if entry[1] != who)


Scope = tuple[str, tuple[str, ...]]  # kind and key of a Stop


@attrs.define
class LoopGuard:
    """Owner of what was counted and stopped. A person's messages are not judged."""

    limits: Limits = attrs.Factory(Limits)
    stops: dict[Scope, Stop] = attrs.Factory(dict)
    allowed: dict[str, int] = attrs.Factory(dict)  # root -> hops, of chains that a person has let go on
    _lengths: dict[str, int] = attrs.Factory(dict)  # root -> messages in all branches, but for answers to the person
    _recent: dict[Scope, Recent] = attrs.Factory(dict)

    # ------------------------------------------------------------------ judging

    def judge(self, said: Utterance) -> Verdict:
        """Count the message, or hold it; for some of its recipients only, when only they are concerned."""
        held = {name: stop for name in said.recipients if (stop := self.stopped(said, name)) is not None}
        over = self._exceeded(said) if len(held) < len(said.recipients) else None
        for name in said.recipients:
            if name not in held and (stop := over or self._exceeded_between(said, name)) is not None:
                held[name] = stop
        going = tuple(name for name in said.recipients if name not in held)
        if going:
            self.count(said, going)
        return Verdict(frozenset(held), tuple(self._hold(said, held)))

    def stopped(self, said: Utterance, recipient: str) -> Stop | None:
        """What already holds this message for this recipient."""
        scopes = _whole(said) | _between(said, recipient)
        if said.chain.hops <= DIRECT_HOPS:
            scopes.pop("chain")
        return next((stop for scope in scopes.items() if (stop := self.stops.get(scope)) is not None), None)

    def count(self, said: Utterance, recipients: tuple[str, ...]) -> None:
        """It goes to these."""
        scopes: list[Scope] = [("agent", (said.sender,)), ("room", (said.room,))]
        scopes += [("pair", _between(said, name)["pair"]) for name in recipients]
        for scope in scopes:
            self._of(scope).add(said.ts, said.sender)
        for name in recipients:
            self._of(("texts", (said.sender, name))).add(said.ts, said.digest)
        if said.chain.hops > DIRECT_HOPS:
            self._lengths[said.chain.root] = self._lengths.pop(said.chain.root, 0) + 1
            _trim(self._lengths)

    def _exceeded(self, said: Utterance) -> Stop | None:
        """The limit that this message exceeds, whoever gets it."""
        limits, sender = self.limits, said.sender
        allowed = self.allowed.get(said.chain.root, limits.max_hops)
        if said.chain.hops > allowed:
            return _stop(said, "chain", f"{allowed} messages of agents led to one another without a person (max_hops)")
        if said.chain.hops > DIRECT_HOPS and self._lengths.get(said.chain.root, 0) >= limits.max_messages:
            return _stop(said, "chain", f"one message led to {limits.max_messages} of agents (max_messages)")
        if self._of(("agent", (sender,))).count(said.ts) >= limits.agent_per_min:
            why = f"{sender} said {limits.agent_per_min} messages within a minute (agent_per_min)"
            return _stop(said, "agent", why)
        room = self._of(("room", (said.room,)))
        if room.count(said.ts) >= limits.room_per_min:
            # those who said little may go on: it is not they who fill the room
            share = limits.room_per_min // len(room.counted() | {sender})
            if room.count(said.ts, sender) >= share:
                why = f"{limits.room_per_min} messages within a minute in room {said.room} (room_per_min)"
                return _stop(said, "member", f"{why}, {share} or more of them {sender}'s")
        return None

    def _exceeded_between(self, said: Utterance, recipient: str) -> Stop | None:
        limit = self.limits.pair_per_min
        if self._of(("pair", _between(said, recipient)["pair"])).count(said.ts) >= limit:
            why = f"{said.sender} and {recipient} exchanged {limit} messages within a minute (pair_per_min)"
            return _stop(said, "pair", why, recipient)
        texts = self._of(("texts", (said.sender, recipient)))
        if said.chain.hops > DIRECT_HOPS and texts.count(said.ts, said.digest) >= REPEATS:
            why = f"{said.sender} said the same to {recipient} {REPEATS} times within a minute"
            return _stop(said, "repeat", why, recipient)
        return None

    def _hold(self, said: Utterance, held: Mapping[str, Stop]) -> Iterator[Stop]:
        """Remember who is concerned; -> the stops that are not as they were."""
        changed: dict[Scope, Stop] = {}
        for name, stop in held.items():
            scope = (stop.kind, stop.key)
            known = self.stops.get(scope)
            names = tuple(sorted({*(known or stop).names, said.sender, name}))
            if known is None or names != known.names:
                self.stops[scope] = changed[scope] = attrs.evolve(known or stop, names=names)
        yield from changed.values()

    def _of(self, scope: Scope) -> Recent:
        return self._recent.setdefault(scope, Recent())

    # ------------------------------------------------------------------ letting go

    def release(self, which: Callable[[Stop], bool]) -> list[Stop]:
        """A person lets these go on, with a fresh allowance; -> what was stopped."""
        released = [stop for stop in self.stops.values() if which(stop)]
        for stop in released:
            del self.stops[stop.kind, stop.key]
            if stop.kind == "chain":
                (root,) = stop.key
                self.allowed[root] = self.allowed.pop(root, self.limits.max_hops) + self.limits.max_hops
                self._lengths.pop(root, None)
            for name in stop.names:
                self.forget(name)
        _trim(self.allowed)
        return released

    def forget(self, name: str) -> None:
        """Nothing that this agent said is counted any more."""
        for scope, recent in list(self._recent.items()):
            if scope[0] == "room":
                recent.drop(name)
            elif name in scope[1]:
                del self._recent[scope]

    # ------------------------------------------------------------------ over a restart

    def as_json(self) -> dict[str, Any]:
        return {"stops": [attrs.asdict(stop) for stop in self.stops.values()], "allowed": self.allowed}

    def restore(self, kept: Mapping[str, Any]) -> None:
        for each in kept["stops"]:
            stop = Stop.from_json(each)
            self.stops[stop.kind, stop.key] = stop
        self.allowed.update(kept["allowed"])


def _trim(chains: dict[str, int]) -> None:
    while len(chains) > CHAINS_MAX:
        del chains[next(iter(chains))]


def _whole(said: Utterance) -> dict[str, tuple[str, ...]]:
    return {"chain": (said.chain.root,), "agent": (said.sender,), "member": (said.room, said.sender)}


def _between(said: Utterance, recipient: str) -> dict[str, tuple[str, ...]]:
    pair = tuple(sorted((said.sender, recipient)))
    return {"pair": pair, "repeat": (said.sender, recipient, said.digest)}


def _stop(said: Utterance, kind: str, why: str, recipient: str = "") -> Stop:
    key = (_whole(said) | _between(said, recipient))[kind]
    return Stop(kind, key, said.room, (said.sender,), why, said.ts)
