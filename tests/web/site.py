"""A gateway without a listener: real history, hub, guests and tokens; connections are memory streams."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import trio
import trio.testing
from web.peer import Web

from cspd.config import GatewayConfig
from cspd.control.call import Services
from cspd.errors import CspError
from cspd.gateway.guestbook import GuestRecord
from cspd.gateway.guests import Guests
from cspd.gateway.history import open_history
from cspd.gateway.hub import Agent, Hub
from cspd.gateway.tokens import Tokens, room_token
from cspd.paths import Paths
from cspd.unit.manager import Manager
from cspd.web.connection import Connection, Site
from cspd.web.crowd import Crowd
from cspd.web.metrics import Counts

ADDRESS = "127.0.0.1"


@attrs.define
class NoUnits:
    """A manager of no unit at all."""

    units: Mapping[str, Any] = attrs.Factory(dict)

    def get(self, name: str) -> Any:
        raise CspError("no-such-agent", f"agent: {name!r}: not known")


@attrs.define
class FakeDaemon:
    listen: str = ""

    def log_of(self, name: str) -> list[str]:
        return []


@attrs.define
class Place:
    """What a test asks, and the nursery in which its connections run."""

    site: Site
    nursery: trio.Nursery
    room_token: str

    @property
    def hub(self) -> Hub:
        return self.site.services.hub

    def connect(self, token: str | None = None) -> Web:
        """A new connection; with the room token unless another is given."""
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(Connection(self.site, theirs, ADDRESS).serve)
        return Web(ours, self.room_token if token is None else token)

    async def register(self, name: str, **more: Any) -> tuple[str, str]:
        """-> (name, token)."""
        reply = await self.connect().ask("POST", "/register", {"name": name, **more})
        assert reply.status == 201, reply.body
        return reply.json["agent"], reply.json["token"]

    async def follow(self, token: str | None = None, query: str = "") -> Web:
        """A WebSocket that is open."""
        web = self.connect(token)
        reply = await web.upgrade(f"/events{query}")
        assert reply.status == 101, reply.body
        await trio.testing.wait_all_tasks_blocked()  # it is subscribed: nothing waits but for events
        return web


def as_agent(record: GuestRecord) -> Agent:
    return Agent(record.name, record.room, 1000.0, {})


@asynccontextmanager
async def place_at(root: Path, crowd: Crowd | None = None, patience_sec: float = 60.0) -> AsyncIterator[Place]:
    hub = Hub()
    paths = Paths(root / "run", root / "config", root / "state")
    paths.runtime.mkdir(parents=True, exist_ok=True)
    with trio.fail_after(patience_sec):
        async with open_history(paths.history_db, on_commit=hub.committed) as history:
            await hub.start(history)
            guests, tokens = Guests(hub, as_agent), Tokens(history)
            await guests.start()
            await tokens.start(paths.token_file)
            manager, daemon = cast(Manager, NoUnits()), cast(Any, FakeDaemon())
            services = Services(paths, hub, manager, guests, tokens, daemon, trio.current_time())
            async with trio.open_nursery() as nursery:
                site = Site(services, GatewayConfig(), Counts(), crowd or Crowd())
                yield Place(site, nursery, room_token(paths.token_file))
                nursery.cancel_scope.cancel()
            assert site.crowd.count == 0
