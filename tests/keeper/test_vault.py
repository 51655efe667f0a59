"""cspd's duplicates of terminals: of no agent that has ended, in whatever order that becomes known."""

import os
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from cspd.keeper.vault import Vault
from cspd.paths import Paths

pytestmark = pytest.mark.virtual_time


@attrs.define
class SlowKeeper:
    """Answers `share` with two descriptors, when it is let."""

    incarnation: int
    gate: trio.Event = attrs.Factory(trio.Event)
    shared: list[int] = attrs.Factory(list)

    async def ask(self, request: dict[str, Any], fds: tuple[int, ...]) -> tuple[dict[str, Any], tuple[int, ...]]:
        about = {"name": request["name"], "incarnation": self.incarnation}
        await self.gate.wait()
        self.shared[:] = [os.open("/dev/null", os.O_RDONLY) for _ in range(2)]
        return about, tuple(self.shared)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("meanwhile", "kept"),
    [
        (lambda vault: None, True),
        (lambda vault: vault.ended("bob", 1), True),  # the one before
        (lambda vault: vault.ended("alice", 2), True),
        (lambda vault: vault.ended("bob", 2), False),
        (lambda vault: vault.ended("bob", 3), False),
    ],
)
async def test_a_terminal_whose_agent_ends_before_it_arrives_is_not_kept(
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    meanwhile: Callable[[Vault], None],
    kept: bool,
) -> None:
    keeper, vault = SlowKeeper(2), Vault(Paths(tmp_path, tmp_path, tmp_path))
    monkeypatch.setattr(Vault, "_ask", lambda _, request, fds: keeper.ask(request, fds))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vault.fetch, "bob", 2)
        await trio.testing.wait_all_tasks_blocked()
        meanwhile(vault)
        keeper.gate.set()
    assert [is_open(fd) for fd in keeper.shared] == [kept, kept]
    assert vault.holds("bob", 2) is kept
    vault.drop("bob")
    assert not any(is_open(fd) for fd in keeper.shared)
