"""Rooms: who is in which, and whom a message reaches or why it does not."""

import pytest

from cspd.errors import CspError
from cspd.gateway.room import LOBBY, Rooms, Route

pytestmark = pytest.mark.pure


def rooms() -> Rooms:
    """alice, bob and carol in the lobby, dora and emil in the den; carol joined the den as well."""
    home = {"alice": LOBBY, "bob": LOBBY, "carol": LOBBY, "dora": "den", "emil": "den"}
    return Rooms(home=home, joined={"den": {"carol"}}, topics={LOBBY: "", "attic": "dust"})


def code_of(*args: object) -> str:
    with pytest.raises(CspError) as raised:
        rooms().route(*args)  # type: ignore[arg-type]
    return raised.value.code


@pytest.mark.parametrize(
    ("sender", "to", "room", "route"),
    [
        ("alice", "bob", None, Route(LOBBY, ("bob",))),
        ("alice", ["carol", "bob"], None, Route(LOBBY, ("carol", "bob"))),
        ("alice", ["bob", "bob"], None, Route(LOBBY, ("bob",))),
        ("alice", "broadcast", None, Route(LOBBY, ("bob", "carol"))),
        ("alice", "all", None, Route(LOBBY, ("bob", "carol"))),
        ("alice", ["broadcast"], None, Route(LOBBY, ("bob", "carol"))),
        ("human", "broadcast", None, Route(LOBBY, ("alice", "bob", "carol"))),
        ("human", "broadcast", "den", Route("den", ("carol", "dora", "emil"))),
        ("carol", "broadcast", "den", Route("den", ("dora", "emil"))),
        ("alice", "human", None, Route(LOBBY, ())),
        ("dora", "human", None, Route("den", ())),
        ("alice", ["human", "bob"], None, Route(LOBBY, ("bob",))),
        ("alice", "dora", None, Route("den", ("dora",))),  # not in her room: the recipient's
        ("alice", ["dora", "bob"], None, Route("den", ("dora", "bob"))),
        ("human", "carol", "den", Route("den", ("carol",))),
        ("dora", "carol", None, Route("den", ("carol",))),
        ("dora", "alice", None, Route(LOBBY, ("alice",))),
    ],
)
def test_a_message_reaches_whom_it_names(sender: str, to: str | list[str], room: str | None, route: Route) -> None:
    assert rooms().route(sender, to, room) == route


@pytest.mark.parametrize(
    ("sender", "to", "room", "code"),
    [
        ("alice", "zed", None, "no-such-agent"),
        ("alice", ["bob", "zed"], None, "no-such-agent"),
        ("alice", [], None, "nobody"),
        ("alice", "alice", None, "nobody"),
        ("alice", ["bob", "alice"], None, "nobody"),
        ("alice", ["broadcast", "bob"], None, "nobody"),
        ("alice", ["bob", "all"], None, "nobody"),
        ("alice", "bob", "cellar", "no-such-room"),
        ("alice", "bob", "", "no-such-room"),
        ("alice", "human", "cellar", "no-such-room"),
        ("alice", "broadcast", "cellar", "no-such-room"),
        ("alice", "broadcast", "attic", "nobody"),
        ("alice", "dora", LOBBY, "not-a-member"),
        ("human", ["carol", "alice"], "den", "not-a-member"),
    ],
)
def test_a_message_that_reaches_nobody_or_a_stranger_is_refused(
    sender: str, to: str | list[str], room: str | None, code: str
) -> None:
    assert code_of(sender, to, room) == code


def test_a_refusal_suggests_the_nearest_name() -> None:
    with pytest.raises(CspError, match="did you mean 'carol'"):
        rooms().route("alice", "carrol", None)
    with pytest.raises(CspError, match="did you mean 'den'"):
        rooms().check("denn")


def test_the_word_for_everybody_is_named_when_it_does_not_stand_alone() -> None:
    with pytest.raises(CspError, match="to: bob, all: 'all' stands for everybody"):
        rooms().route("alice", ["bob", "all"], None)


def test_an_agent_alone_in_its_room_has_nobody_to_broadcast_to() -> None:
    alone = Rooms(home={"alice": LOBBY})
    with pytest.raises(CspError) as raised:
        alone.route("alice", "broadcast", None)
    assert raised.value.code == "nobody"
    assert alone.route("human", "broadcast", None).recipients == ("alice",)


def test_rooms_are_those_with_a_topic_a_home_or_somebody_who_joined() -> None:
    assert rooms().names() == ["attic", "den", LOBBY]
    assert Rooms().names() == [LOBBY]


def test_members_are_at_home_or_joined() -> None:
    assert rooms().members("den") == ["carol", "dora", "emil"]
    assert rooms().members("attic") == []
    assert rooms().rooms_of("carol") == ["den", LOBBY]


def test_an_agent_that_was_removed_is_no_member_of_what_it_joined() -> None:
    some = rooms()
    del some.home["carol"]
    assert some.members("den") == ["dora", "emil"]


def test_joining_and_leaving_a_room() -> None:
    some = rooms()
    some.change("attic", "bob", True)
    assert some.members("attic") == ["bob"]
    some.change("attic", "bob", False)
    assert some.members("attic") == []
    some.change("attic", "bob", False)  # already so


@pytest.mark.parametrize(
    ("room", "agent", "code"),
    [("cellar", "bob", "no-such-room"), ("den", "zed", "no-such-agent"), (LOBBY, "bob", "at-home")],
)
def test_leaving_is_refused_with_its_reason(room: str, agent: str, code: str) -> None:
    with pytest.raises(CspError) as raised:
        rooms().check_change(room, agent, False)
    assert raised.value.code == code


def test_a_refused_route_changes_nothing() -> None:
    some = rooms()
    with pytest.raises(CspError):
        some.check_change("cellar", "bob", True)
    with pytest.raises(CspError):
        some.route("alice", "zed", None)
    assert some == rooms()


def test_a_room_is_described_with_its_members_and_counts() -> None:
    some = rooms()
    some.paused.add("den")
    about = {"room": "den", "topic": "", "members": ["carol", "dora", "emil"], "messages": 7, "paused": True}
    assert some.describe("den", 7) == about
    assert some.describe("attic", 0)["topic"] == "dust"
