"""Who may stay when there are too many."""

import attrs
import pytest

from cspd.web.crowd import Crowd

pytestmark = pytest.mark.pure


@attrs.define(eq=False)
class Guest:
    crowd: Crowd
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


def test_the_oldest_stranger_makes_room_for_a_new_one() -> None:
    crowd = Crowd(most=100, strangers_most=2)
    guests = [Guest(crowd) for _ in range(4)]
    assert all(crowd.enter(guest) for guest in guests)
    assert [guest.cancelled for guest in guests] == [True, True, False, False]
    assert crowd.count == 2


def test_who_has_shown_a_token_is_never_pushed_out() -> None:
    crowd = Crowd(most=3, strangers_most=2)
    known, stranger = Guest(crowd), Guest(crowd)
    for guest in (known, stranger):
        crowd.enter(guest)
    crowd.know(known)
    for _ in range(10):
        crowd.enter(Guest(crowd))
    assert (known.cancelled, stranger.cancelled, crowd.count) == (False, True, 3)


def test_there_is_no_room_when_everybody_is_known() -> None:
    crowd = Crowd(most=1)
    first = Guest(crowd)
    crowd.enter(first)
    crowd.know(first)
    assert not crowd.enter(Guest(crowd))
    crowd.leave(first)
    assert crowd.enter(Guest(crowd))


def test_leaving_twice_and_knowing_who_left_change_nothing() -> None:
    crowd = Crowd(most=5)
    guest = Guest(crowd)
    crowd.enter(guest)
    crowd.leave(guest)
    crowd.leave(guest)
    crowd.know(guest)
    assert crowd.count == 0
