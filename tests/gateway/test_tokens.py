"""The room token's file, and agents' tokens as their owner keeps them."""

import os
import stat
from pathlib import Path

import pytest

from cspd.errors import CspError
from cspd.gateway.history import open_history
from cspd.gateway.identity import Identity
from cspd.gateway.tokens import Tokens, room_token, token_id

pytestmark = pytest.mark.real


def test_the_room_token_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        token = room_token(tmp_path / "token")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert len(token) > 40
    assert room_token(tmp_path / "token") == token
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("content", ["", "short", "two words that are long enough", "ungültig" * 9])
def test_a_room_token_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(CspError) as refused:
        room_token(path)
    assert refused.value.code == "bad-token"
    assert not content or content not in str(refused.value)


def test_a_room_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("x" * 40)
    path.chmod(0o640)
    with pytest.raises(CspError) as refused:
        room_token(path)
    assert refused.value.code == "not-private"


def test_a_link_to_a_token_elsewhere_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x" * 40)
    (tmp_path / "token").symlink_to(tmp_path / "other")
    with pytest.raises(CspError) as refused:
        room_token(tmp_path / "token")
    assert refused.value.code == "bad-token"


async def test_tokens_are_found_listed_and_ended(tmp_path: Path) -> None:
    async with open_history(tmp_path / "history.db") as history:
        tokens = Tokens(history)
        await tokens.start(tmp_path / "token")
        assert tokens.who(room_token(tmp_path / "token")) == (Identity(), "")
        first, second = await tokens.issue("alice"), await tokens.issue("alice")
        bobs = await tokens.issue("bob")
        for token, agent in ((first, "alice"), (second, "alice"), (bobs, "bob")):
            found = tokens.who(token)
            assert found is not None
            assert found[0] == Identity(agent)
        assert tokens.who("") is None
        by_id = token_id(tokens.known()[0])
        assert [record.agent for record in await tokens.revoke(by_id)] == ["alice"]
        assert [record.agent for record in tokens.known()] == ["alice", "bob"]
        await tokens.revoke("alice")
        assert (tokens.who(first), tokens.who(second)) == (None, None)
        with pytest.raises(CspError) as refused:
            await tokens.revoke("alise")
        assert refused.value.code == "no-such-token"
        assert [record.agent for record in await history.tokens()] == ["bob"]


async def test_without_a_room_token_agents_still_have_theirs(tmp_path: Path) -> None:
    async with open_history(tmp_path / "history.db") as history:
        tokens = Tokens(history)
        await tokens.start(tmp_path / "token")
        token = await tokens.issue("alice")
        (tmp_path / "token").chmod(0o666)
        again = Tokens(history)
        with pytest.raises(CspError):
            await again.start(tmp_path / "token")
        assert again.who(token) is not None
        assert again.who("") is None
