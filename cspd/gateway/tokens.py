"""Who may speak over the network: the person by the room token in a file, an agent by a token of its own.

Owner of both. Of an agent's token only the hash is kept; a revoked one ends the connections that it opened. What may be
done with an identity is decided by the methods.
"""

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from cspd.errors import CspError, nearest
from cspd.gateway.history import History
from cspd.gateway.identity import Identity
from cspd.gateway.tokenbook import TokenRecord

TOKEN_BYTES = 32  # of randomness: nobody guesses it, so there is nothing to slow down
ID_LENGTH = 8  # characters of the hash by which people name a token
ROOM_TOKEN_MIN = 16  # characters of one that a person wrote into the file


@attrs.define(eq=False)
class Tokens:
    """`cut` calls end the connections of a token; who opens one adds and removes it."""

    store: History
    _room: bytes = b""  # the digest of the person's
    _agents: dict[bytes, TokenRecord] = attrs.Factory(dict)  # by digest
    _cuts: dict[str, set[Callable[[], None]]] = attrs.Factory(dict)  # by hash

    async def start(self, path: Path) -> None:
        """Know the tokens on disk; make the room token when there is none. Raises CspError."""
        for record in await self.store.tokens():
            self._agents[bytes.fromhex(record.hash)] = record
        self._room = _digest(room_token(path))

    def who(self, token: str) -> tuple[Identity, str] | None:
        """Whose it is, and the hash of an agent's for `opened`; None when it is nobody's."""
        digest = _digest(token)
        if hmac.compare_digest(digest, self._room):
            return Identity(), ""
        # by digest: how long a look-up takes tells of the digest at most, and nobody can aim at one
        record = self._agents.get(digest)
        return None if record is None else (Identity(record.agent), record.hash)

    async def issue(self, agent: str) -> str:
        """A new token for `agent`, on disk when this returns; it cannot be read again."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        digest = _digest(token)
        record = TokenRecord(digest.hex(), agent, time.time())
        await self.store.add_token(record)
        self._agents[digest] = record
        return token

    def known(self) -> list[TokenRecord]:
        return sorted(self._agents.values(), key=lambda record: (record.made_ts, record.hash))

    def connections(self, hash: str) -> int:
        return len(self._cuts.get(hash, ()))

    def opened(self, hash: str, cut: Callable[[], None]) -> None:
        self._cuts.setdefault(hash, set()).add(cut)

    def closed(self, hash: str, cut: Callable[[], None]) -> None:
        cuts = self._cuts.get(hash, set())
        cuts.discard(cut)
        if not cuts:
            self._cuts.pop(hash, None)

    async def revoke_all(self, agent: str) -> None:
        """The agent is no member any more. It may have none."""
        await self._revoke([record for record in self.known() if record.agent == agent])

    async def revoke(self, name: str) -> list[TokenRecord]:
        """End an agent's tokens, or the one whose id this is: at once, and then on disk.

        Raises CspError("no-such-token").
        """
        gone = [record for record in self.known() if name in (record.agent, token_id(record))]
        if not gone:
            names = [word for record in self.known() for word in (record.agent, token_id(record))]
            raise CspError("no-such-token", f"token: {name!r}: not known", nearest(name, names) or "`cspctl tokens`")
        await self._revoke(gone)
        return gone

    async def _revoke(self, gone: list[TokenRecord]) -> None:
        for record in gone:
            del self._agents[bytes.fromhex(record.hash)]
            for cut in list(self._cuts.get(record.hash, ())):
                cut()
        await self.store.remove_tokens([record.hash for record in gone])


def token_id(record: TokenRecord) -> str:
    return record.hash[:ID_LENGTH]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def room_token(path: Path) -> str:
    """The content of the person's token file, which is made when it is missing. Raises CspError."""
    try:
        return _read_room_token(path)
    except FileNotFoundError:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(token + "\n")
        new.rename(path)
        return token
    except OSError as exc:
        raise CspError("bad-token", f"token: {path}: {exc.strerror}", f"delete {path}, and restart cspd") from exc


def _read_room_token(path: Path) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), errors="replace") as file:
        facts = os.fstat(file.fileno())
        token = file.read(4096).strip()
    hint = f"delete {path}, and restart cspd: it makes a new one"
    if facts.st_uid != os.getuid() or stat.S_IMODE(facts.st_mode) & 0o077:
        raise CspError("not-private", f"token: {path}: others may have read it", hint)
    if len(token) < ROOM_TOKEN_MIN or not token.isascii() or len(token.split()) != 1:
        raise CspError("bad-token", f"token: {path}: not {ROOM_TOKEN_MIN} or more characters in one word", hint)
    return token
