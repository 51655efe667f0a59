"""What waits for one agent: order, the window, lost links, and that every message ends exactly once."""

from collections.abc import Iterable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cspd.gateway.inbox import FINAL, RANK, STALE_MAX, WINDOW, Command, Give, Inbox, InHand, Item, Record

pytestmark = pytest.mark.pure

UNTOUCHED = ("accepted", "held")
BEGUN = ("typing", "echoed")


def inbox(*ids: str, linked: bool = True) -> Inbox:
    box = Inbox()
    if linked:
        box.link([])
    for message_id in ids:
        box.posted(Item(message_id))
    return box


def given(commands: Iterable[Command]) -> list[str]:
    return [command.message_id for command in commands if isinstance(command, Give)]


def recorded(commands: Iterable[Command]) -> list[tuple[str, str, str]]:
    return [(c.message_id, c.step, c.reason) for c in commands if isinstance(c, Record)]


def test_a_message_is_given_at_once_when_a_sidecar_is_there() -> None:
    assert inbox().posted(Item("m")) == [Give("m")]


def test_a_message_is_held_while_no_sidecar_is_there() -> None:
    box = inbox(linked=False)
    assert box.posted(Item("m")) == [Record("m", "held", "offline")]
    assert box.posted(Item("n")) == [Record("n", "held", "offline")]
    assert box.link([]) == [Give("m"), Give("n")]


# ---------------------------------------------------------------------- withheld


@pytest.mark.parametrize("reason", ["loop_guard", "floor"])
@pytest.mark.parametrize("linked", [True, False])
def test_a_withheld_message_waits_for_its_word_and_later_ones_pass_it(reason: str, linked: bool) -> None:
    box = inbox(linked=linked)
    assert box.posted(Item("m", "held", reason)) == []
    assert box.posted(Item("n")) == ([Give("n")] if linked else [Record("n", "held", "offline")])
    assert box.unlink() == ([Record("n", "held", "offline")] if linked else [])
    assert given(box.link([])) == ["n"]
    assert [item.message_id for item in box.withheld()] == ["m"]
    assert box.released("m", "at a word", 9.0) == [Record("m", "accepted", "", "at a word"), Give("m")]
    assert box.withheld() == []


def test_a_released_message_waits_as_others_do_while_no_sidecar_is_there() -> None:
    box = inbox(linked=False)
    box.posted(Item("m", "held", "floor"))
    assert recorded(box.released("m", "", 9.0)) == [("m", "accepted", ""), ("m", "held", "offline")]


def test_a_withheld_message_does_not_expire_and_a_released_one_has_its_time_anew() -> None:
    box = inbox(linked=False)
    box.posted(Item("m", "held", "loop_guard", expires_ts=1.0))
    assert box.next_expiry_ts == float("inf")
    assert box.expire(100.0) == []
    box.released("m", "", 200.0)
    assert box.expire(199.0) == []
    assert recorded(box.expire(200.0)) == [("m", "expired", "nobody could take it in time")]


def test_a_bounded_number_of_messages_is_with_the_sidecar() -> None:
    ids = [f"m{number:02}" for number in range(WINDOW + 3)]
    box = inbox(*ids, linked=False)
    assert given(box.link([])) == ids[:WINDOW]
    assert given(box.reported("m00", "submitted")) == ids[WINDOW : WINDOW + 1]


def test_an_end_gives_the_next_and_other_steps_do_not() -> None:
    box = inbox(*map(str, range(WINDOW + 1)))
    for step in ("typing", "echoed"):
        assert given(box.reported("0", step)) == []
    assert box.reported("0", "submitted", "", "box empty") == [
        Record("0", "submitted", "", "box empty"),
        Give(str(WINDOW)),
    ]


def test_a_repeated_report_changes_nothing() -> None:
    box = inbox("m")
    assert box.reported("m", "held", "busy") == [Record("m", "held", "busy")]
    assert box.reported("m", "held", "busy") == []
    assert box.reported("m", "held", "dialog") == [Record("m", "held", "dialog")]
    box.reported("m", "submitted")
    assert box.reported("m", "submitted") == []
    assert box.reported("m", "held", "busy") == []


def test_a_reason_to_hold_a_message_is_recorded_once_however_often_it_comes_back() -> None:
    """Of a program that draws itself every few seconds."""
    box = inbox("m")
    told = [command for n in range(100) for command in box.reported("m", "held", ("busy", "unknown")[n % 2])]
    assert recorded(told) == [("m", "held", "busy"), ("m", "held", "unknown")]
    assert box.items["m"].reason == "unknown"
    assert recorded(box.reported("m", "held", "dialog")) == [("m", "held", "dialog")]
    box.reported("m", "typing")
    assert recorded(box.reported("m", "held", "busy")) == [("m", "held", "busy")]


def test_a_message_that_is_withheld_again_is_always_recorded_and_what_holds_it_after_that_too() -> None:
    box = inbox("m", linked=False)
    reasons = ["offline", "floor", "offline", "floor", "offline"]
    told = [command for reason in reasons for command in box.reported("m", "held", reason)]
    assert [reason for _, _, reason in recorded(told)] == reasons[1:]  # it was offline from the beginning


def test_a_turn_is_recorded_after_its_message_has_left() -> None:
    box = inbox("m")
    box.reported("m", "submitted")
    assert box.reported("m", "turn_started") == [Record("m", "turn_started")]
    assert box.reported("m", "turn_ended") == [Record("m", "turn_ended")]


def test_after_a_lost_link_untouched_messages_are_given_again_in_order() -> None:
    box = inbox("a", "b", "c")
    box.reported("b", "held", "busy")
    assert recorded(box.unlink()) == [(each, "held", "offline") for each in "abc"]
    assert given(box.link([])) == ["a", "b", "c"]


def test_what_the_ledger_knows_is_not_given_again() -> None:
    box = inbox("a", "b", "c", "d")
    for message_id in ("a", "b"):
        box.reported(message_id, "typing")
    box.unlink()
    ledger = [
        InHand("a", "submitted"),
        InHand("b", "unknown", "sidecar ended while typing"),
        InHand("c", "held", "busy"),
    ]
    commands = box.link(ledger)
    assert given(commands) == ["d"]
    assert recorded(commands) == [
        ("a", "submitted", ""),
        ("b", "unknown", "sidecar ended while typing"),
        ("c", "held", "busy"),
    ]


def test_an_end_found_in_the_ledger_does_not_give_what_stands_further_down_in_it() -> None:
    box = inbox("a", "b", linked=False)
    assert given(box.link([InHand("a", "submitted"), InHand("b", "held", "busy")])) == []


def test_messages_whose_steps_follow_one_by_one_are_in_hand_and_nothing_is_said_yet() -> None:
    box = inbox("a", "b", linked=False)
    assert box.link([InHand("a", "submitted", follows=True)]) == [Give("b")]
    assert box.reported("a", "typing") == [Record("a", "typing")]
    assert recorded(box.reported("a", "submitted")) == [("a", "submitted", "")]


def test_a_begun_message_without_a_ledger_is_unknown_and_never_given_again() -> None:
    box = Inbox()
    box.restored([Item("a", "typing"), Item("b", "echoed"), Item("c", "held", "busy")])
    commands = box.link([])
    assert [step for _, step, _ in recorded(commands)] == ["unknown", "unknown"]
    assert given(commands) == ["c"]
    assert list(box.items) == ["c"]


def test_what_the_ledger_knows_of_messages_long_over_is_ignored() -> None:
    assert inbox(linked=False).link([InHand("old", "turn_ended"), InHand("older", "held")]) == []


def test_a_message_expires_only_while_nobody_has_it_in_hand() -> None:
    box = inbox(linked=False)
    for message_id, expires in (("a", 10.0), ("b", 20.0), ("c", 10.0)):
        box.posted(Item(message_id, expires_ts=expires))
    box.items["c"].step = "typing"
    assert box.expire(9.9) == []
    assert [(m, step) for m, step, _ in recorded(box.expire(10.0))] == [("a", "expired")]
    box.link([InHand("c", "held")])
    assert box.expire(99.0) == []
    assert list(box.items) == ["b", "c"]


def test_the_next_expiry_is_that_of_a_message_that_can_expire_here() -> None:
    box = inbox(linked=False)
    assert box.next_expiry_ts == float("inf")
    for message_id, expires in (("a", 30.0), ("b", 20.0), ("c", 10.0)):
        box.posted(Item(message_id, expires_ts=expires))
    box.items["c"].step = "typing"
    assert box.next_expiry_ts == 20.0
    box.link([])
    assert box.next_expiry_ts == float("inf")


class Unread(dict[str, Item]):
    """Messages of which one may be asked for, and never all."""

    def __iter__(self) -> Any:
        raise AssertionError("all messages are looked at")

    items = keys = values = __iter__


@pytest.mark.parametrize("linked", [True, False])
def test_a_message_that_comes_or_goes_costs_no_look_at_all_the_others(linked: bool) -> None:
    box = inbox(*(f"m{number:03}" for number in range(200)), linked=linked)
    box.posted(Item("kept", "held", "floor", expires_ts=500.0))
    box.items = Unread(box.items)
    box.posted(Item("m200", expires_ts=300.0))
    box.reported("m000", "typing")
    box.reported("m000", "submitted")
    box.released("kept", "at a word", 400.0)
    assert box.next_expiry_ts == 300.0
    assert recorded(box.expire(350.0)) == [("m200", "expired", "nobody could take it in time")]


def test_what_went_on_long_ago_is_not_kept() -> None:
    box = inbox()
    for number in range(1000):
        box.posted(Item(str(number), expires_ts=1e9))
        box.reported(str(number), "submitted")
    assert len(box) == 0
    assert len(box._due) <= STALE_MAX


def test_steps_of_the_ladder_have_ranks_and_every_end_is_at_least_submitted() -> None:
    assert all(RANK[step] >= RANK["submitted"] for step in FINAL)
    assert all(RANK[step] < RANK["submitted"] for step in RANK.keys() - FINAL)


@attrs.define
class FakeSidecar:
    """Types one message after the other; its ledger survives it, what it only holds does not."""

    queue: list[str] = attrs.Factory(list)
    ledger: dict[str, str] = attrs.Factory(dict)


class InboxLife(RuleBasedStateMachine):
    """Messages, links that come and go, sidecars that die while typing, and a cspd that forgets all but the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Inbox()
        self.sidecar: FakeSidecar | None = None
        self.ledger: dict[str, str] = {}  # on disk, of this sidecar and those before
        self.disk: dict[str, list[str]] = {}  # message -> its recorded steps
        self.typed: list[str] = []  # messages of which a first key was typed
        self.posted = 0
        self.now = 0.0

    def take(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Record(message_id, step):
                    self.disk[message_id].append(step)
                case Give(message_id):
                    assert self.sidecar is not None, "given although nobody is there"
                    if message_id in self.ledger or message_id in self.sidecar.queue:
                        raise AssertionError(f"{message_id} given a second time")
                    self.sidecar.queue.append(message_id)

    @rule(lifetime=st.sampled_from([5.0, 1000.0]))
    def post(self, lifetime: float) -> None:
        message_id = f"m{self.posted:04}"
        self.posted += 1
        self.disk[message_id] = ["accepted"]
        self.take(self.box.posted(Item(message_id, expires_ts=self.now + lifetime)))

    @rule()
    def link(self) -> None:
        """A new sidecar; what the one before was typing is unknown to it."""
        if self.sidecar is not None:
            self.box.unlink()
        self.sidecar = FakeSidecar()
        for message_id, step in self.ledger.items():
            if step in BEGUN:
                self.ledger[message_id] = "unknown"
        self.take(self.box.link([InHand(m, step) for m, step in self.ledger.items()]))

    @precondition(lambda self: self.sidecar is not None)
    @rule()
    def unlink(self) -> None:
        self.sidecar = None
        self.take(self.box.unlink())

    @precondition(lambda self: self.sidecar is not None and self.sidecar.queue)
    @rule(step=st.sampled_from(["typing", "echoed", "submitted", "refused", "expired"]))
    def sidecar_goes_on(self, step: str) -> None:
        assert self.sidecar is not None
        message_id = self.sidecar.queue[0]
        if message_id not in self.typed and step != "refused" and step != "expired":
            self.typed.append(message_id)
        self.ledger[message_id] = step
        if step in FINAL:
            self.sidecar.queue.pop(0)
        self.take(self.box.reported(message_id, step))

    @precondition(lambda self: self.sidecar is not None and self.sidecar.queue)
    @rule()
    def sidecar_begins_and_dies_unheard(self) -> None:
        assert self.sidecar is not None
        message_id = self.sidecar.queue[0]
        if message_id not in self.typed:
            self.typed.append(message_id)
        self.ledger[message_id] = "typing"
        self.unlink()

    @rule()
    def cspd_starts_anew(self) -> None:
        self.sidecar = None
        self.box = Inbox()
        rest = {m: steps[-1] for m, steps in self.disk.items() if steps[-1] not in FINAL}
        self.box.restored([Item(message_id, step) for message_id, step in rest.items()])

    @rule(pause=st.floats(0.1, 10.0))
    def time_passes(self, pause: float) -> None:
        self.now += pause
        self.take(self.box.expire(self.now))

    @invariant()
    def order_is_kept(self) -> None:
        assert list(self.box.items) == sorted(self.box.items)
        assert self.typed == sorted(self.typed)
        if self.sidecar is not None:
            assert self.sidecar.queue == sorted(self.sidecar.queue)

    @invariant()
    def the_window_is_bounded(self) -> None:
        assert sum(item.given for item in self.box.items.values()) <= WINDOW

    @invariant()
    def every_message_is_here_or_has_ended_once(self) -> None:
        for message_id, steps in self.disk.items():
            ends = [step for step in steps if step in FINAL]
            assert len(ends) <= 1
            assert (message_id in self.box.items) == (not ends)
            assert not ends or steps[-1] == ends[0]

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """With a sidecar there and room in the window, everything is with it."""
        if self.sidecar is not None and len(self.box) <= WINDOW:
            assert all(item.given for item in self.box.items.values())


InboxLife.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestInboxLife = InboxLife.TestCase
