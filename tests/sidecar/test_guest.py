"""The door of a guest: one that may not be in a room does not ask for it all the time."""

from pathlib import Path
from typing import Any, cast

import pytest
import trio

from cspd.errors import CspError
from cspd.sidecar.guest import REFUSED_SEC, GuestDoor
from cspd.sidecar.link import RETRY_MAX_SEC
from cspd.transport import RpcPeer

pytestmark = pytest.mark.virtual_time


class Cspd:
    """Answers as it is told to."""

    def __init__(self, answer: dict[str, Any] | CspError) -> None:
        self.answer = answer

    async def call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if isinstance(self.answer, CspError):
            raise self.answer
        return self.answer


async def register(door: GuestDoor, answer: dict[str, Any] | CspError) -> None:
    await door.register(cast(RpcPeer, Cspd(answer)))


async def test_who_is_refused_rests_long_and_also_in_the_version_after_it() -> None:
    door = GuestDoor(Path("/sock"), "g", "lobby", {})
    assert door.retry_max_sec == RETRY_MAX_SEC
    with pytest.raises(CspError):
        await register(door, CspError("not-allowed", "only the person may"))
    assert door.retry_max_sec == GuestDoor.from_plain(door.to_plain()).retry_max_sec == REFUSED_SEC


async def test_who_is_let_in_later_or_only_finds_a_full_disk_comes_back_soon() -> None:
    door = GuestDoor(Path("/sock"), "g", "lobby", {}, refused=True)
    with pytest.raises(CspError):
        await register(door, CspError("storage", "disk full"))
    assert door.retry_max_sec == RETRY_MAX_SEC
    door.refused = True
    await register(door, {"name": "g-2"})
    assert (door.retry_max_sec, door.name, door.known) == (RETRY_MAX_SEC, "g-2", True)
