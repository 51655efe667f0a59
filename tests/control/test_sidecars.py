"""Reports of a sidecar on a real history: said again because an answer was lost, they are stored once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from cspd.control import chat, sidecars
from cspd.control.call import Caller, Services
from cspd.control.params import Params
from cspd.errors import CspError
from cspd.gateway.history import open_history
from cspd.gateway.hub import Agent, Hub
from cspd.gateway.identity import Identity
from cspd.wire.said import message_id_of
from cspd.wire.version import PROTOCOL

pytestmark = pytest.mark.real


async def test_what_a_sidecar_says_again_is_stored_once(tmp_path: Path) -> None:
    hub = Hub()
    with trio.fail_after(30):
        async with open_history(tmp_path / "history.db", on_commit=hub.committed) as history:
            await hub.start(history)
            for name in ("alice", "bob"):
                await hub.add_agent(Agent(name, "lobby", 1000.0, {}))
            services = cast(Services, SimpleNamespace(hub=hub))
            caller = cast(Caller, SimpleNamespace(identity=Identity("alice"), link=SimpleNamespace(agent="alice")))
            said: dict[str, Any] = {"to": "bob", "content": "hello", "said_id": "n-1"}
            for _ in range(2):
                await sidecars.sidecar_said(services, caller, Params(said))
                await sidecars.sidecar_line(services, caller, Params({"text": "typed", "said_id": "n-2"}))
            sent = await chat.chat_message(services, caller, Params(said | {"said_id": "n-3"}))
            with pytest.raises(CspError) as refusal:
                await chat.chat_message(services, caller, Params(said | {"said_id": "n-3"}))
            assert refusal.value.code == "duplicate-message"
            assert sent["message_id"] == message_id_of("alice", "n-3"), "the sender knows the id without the answer"
            for _ in range(2):
                await sidecars.sidecar_said(services, caller, Params({"to": "bob", "content": "of an old sidecar"}))
            stored = [message.content for message, _ in await history.messages()]
    assert stored == ["hello", "typed", "hello", "of an old sidecar", "of an old sidecar"]


async def test_a_sidecar_that_connects_before_the_keepers_word_of_it_is_believed_from_that_word_on(
    tmp_path: Path,
) -> None:
    async def word(condition: Any) -> None:
        unit.sidecar_pid = 7
        assert condition()

    unit = SimpleNamespace(name="alice", sidecar_pid=None, notify=lambda: None, wait_until=word)
    hub = Hub()
    with trio.fail_after(30):
        async with (
            open_history(tmp_path / "history.db", on_commit=hub.committed) as history,
            trio.open_nursery() as nursery,
        ):
            await hub.start(history)
            await hub.add_agent(Agent("alice", "lobby", 1000.0, {}))
            services = cast(Services, SimpleNamespace(hub=hub, member=lambda name: unit))
            caller = Caller(Identity(), 7, cast(Any, None), nursery)
            caller.unidentified = CspError("not-identified", "sender: its agent cannot be told")
            hello = {"protocol": PROTOCOL, "name": "alice", "incarnation": 1, "ledger": []}
            await sidecars.sidecar_hello(services, caller, Params(hello))
            nursery.cancel_scope.cancel()
    assert (caller.identity, caller.unidentified) == (Identity("alice", sidecar=True), None)
