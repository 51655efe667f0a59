"""A manager against a fake keeper, from one cspd to the next: for the tests of what the manager makes of its units."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import trio
import trio.testing

from cspd.config import UnitConfig
from cspd.errors import CspError
from cspd.keeper.client import KeeperClient
from cspd.paths import Paths
from cspd.unit.machine import State
from cspd.unit.manager import Manager

PATHS = Paths(Path("/r/csp"), Path("/c/csp"), Path("/s/csp"))


@attrs.define(eq=False)
class FakeKeeper:
    """Holds records and notes like the real one, and outlives the manager as that one outlives cspd."""

    agents: dict[str, dict[str, Any]] = attrs.Factory(dict)
    notes: dict[str, Any] = attrs.Factory(dict)
    signals: list[tuple[str, int, str]] = attrs.Factory(list)
    released: list[str] = attrs.Factory(list)
    lost: bool = False
    life: int = 1
    next_pid: int = 100
    gate: trio.Event | None = None
    up: trio.Event = attrs.Factory(trio.Event)  # set by who makes it; while there is no keeper it is not
    manager: Manager | None = None
    tells_lost: bool = True

    def about(self, *awaited: str) -> dict[str, Any]:
        told = {"tells_lost": True} if self.tells_lost else {}
        agents = [dict(record) for record in self.agents.values()]
        return {"agents": agents, "notes": dict(self.notes), "awaited": list(awaited), **told}

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        name = fields["name"]
        if op == "signal":
            await self.tell(op, **fields)
            return {}
        if op == "release":
            self.released.append(name)
            if self.agents.pop(name, None) is None:
                raise CspError("no-such-agent", f"agent: {name!r}: the keeper does not hold it")
            return {}
        assert op == "spawn"
        await self.up.wait()
        if self.gate is not None:
            await self.gate.wait()
        if self.lost:
            raise CspError("keeper-lost", "keeper: the connection was lost")
        if name in self.agents and self.agents[name]["exited"] is None:
            raise CspError("already-running", f"agent: {name}: runs already")
        return self.hold(name, fields["incarnation"])

    def hold(self, name: str, incarnation: int) -> dict[str, Any]:
        self.next_pid += 1
        self.agents[name] = {
            **{"name": name, "incarnation": incarnation, "pid": self.next_pid, "started_ts": time.time()},
            **{"exited": None, "exited_ts": None, "sidecar_pid": self.next_pid + 1000},
        }
        return self.agents[name]

    async def wait_up(self) -> None:
        await self.up.wait()

    async def tell(self, op: str, **fields: Any) -> None:
        if self.lost:
            return
        if op == "note":
            self.notes[fields["name"]] = fields["note"]
        else:
            self.signals.append((fields["name"], fields["signal"], fields["to"]))

    def ends(self, name: str, **status: int) -> None:
        """The agent ends; a cspd that is there hears of it."""
        self.agents[name].update(exited=status, exited_ts=time.time())
        if self.manager is not None:
            self.manager.keeper_event({"event": "agent-exited", **self.agents[name]})

    def brought(self, name: str) -> None:
        """A sidecar brings its agent to this keeper."""
        assert self.manager is not None
        self.manager.keeper_event({"event": "agent-adopted", **self.agents[name]})


def config(name: str = "bob", **changes: Any) -> UnitConfig:
    return UnitConfig(name, ("agent",), working_directory="/", **({"autostart": False} | changes))


@asynccontextmanager
async def cspd(keeper: FakeKeeper, *configs: UnitConfig, awaited: tuple[str, ...] = ()) -> AsyncIterator[Manager]:
    """A cspd from its start to its sudden end."""
    manager = Manager(PATHS, cast(KeeperClient, keeper), lambda supervised: None)
    keeper.manager, keeper.life = manager, 1
    manager.keeper_list(keeper.about(*awaited))
    keeper.up.set()
    async with trio.open_nursery() as nursery:
        await nursery.start(manager.serve, configs)
        await trio.testing.wait_all_tasks_blocked()
        yield manager
        nursery.cancel_scope.cancel()
    keeper.manager = None


def state(manager: Manager, name: str = "bob") -> State:
    return manager.units[name].unit.state


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()
