"""Who is told of a record, how much may wait for him, and that nothing is made twice or for nobody."""

import pytest

from cspd.errors import CspError
from cspd.gateway import feed
from cspd.gateway.feed import Feed, Published, Subscribers, in_parts
from cspd.gateway.records import Accepted, Event, Record

pytestmark = pytest.mark.pure

MESSAGE = Accepted(1, "m-1", "lobby", "human", "bob", "hello", {}, 1.0, "message", {})
STATE = Event(2, 2.0, "agent", "lobby", "bob", None, {"state": "running"})


def waiting(feed: Feed) -> list[int]:
    return [published.event.cursor for published in feed._waiting]


def test_a_feed_gets_the_events_of_its_types_and_of_these_what_it_wants() -> None:
    everything = Feed()
    states = Feed(types=frozenset({"agent"}))
    of_others = Feed(types=frozenset({"agent", "message"}), wants=lambda event: event.agent != "bob")
    subscribers = Subscribers({everything, states, of_others})
    for record in (MESSAGE, STATE):
        subscribers.publish(record)
    assert [waiting(each) for each in (everything, states, of_others)] == [[1, 2], [2], [1]]
    assert [states.takes(event) for event in (STATE, Event(3, 3.0, "room", "lobby", "", None, {}))] == [True, False]


def test_of_a_record_that_concerns_nobody_no_event_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Record] = []

    def as_event(record: Record) -> Event:
        made.append(record)
        return STATE

    monkeypatch.setattr(feed, "as_event", as_event)
    subscribers = Subscribers({Feed(types=frozenset({"agent"})), Feed(types=frozenset({"agent"}))})
    subscribers.publish(MESSAGE)
    assert made == []
    subscribers.publish(STATE)
    assert made == [STATE]  # once, for both
    assert all(isinstance(each, Published) for one in subscribers.feeds for each in one._waiting)


async def test_a_feed_of_long_messages_is_lost_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BYTES_MAX", 10_000)
    each = Feed()
    for cursor in range(8):
        each.put(Published(Event(cursor, 0.0, "message", "lobby", "bob", cursor, {"content": "x" * 2000})))
    assert each.lost
    assert [published.event.cursor for published in await each.take()] == [0, 1, 2, 3]
    with pytest.raises(CspError, match="not read"):
        await each.take()


async def test_an_event_is_encoded_once_for_all_subscribers() -> None:
    made: list[int] = []

    def encode(published: Published) -> bytes:
        made.append(published.event.cursor)
        return b"x"

    subscribers, feeds = Subscribers(), [Feed() for _ in range(5)]
    subscribers.feeds |= set(feeds)
    subscribers.publish(Event(7, 0.0, "agent", "lobby", "bob", None, {}))
    for each in feeds:
        assert list(in_parts(await each.take(), encode)) == [b"x"]
    assert made == [7]
