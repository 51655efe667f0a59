"""What counts as the answer to a question, among all that is said and done after it."""

from typing import Any

import pytest

from cspd.control.mcp.answer import Outcome, Question
from cspd.gateway.question import Asked

pytestmark = pytest.mark.pure

ID = "5f00"


def question() -> Question:
    return Question(Asked(ID, "alice", "bob"))


def said(sender: str = "bob", to: str = "alice", content: str = "42", kind: str = "message", **meta: Any) -> Any:
    return {
        "message_id": "aa01",
        "from": sender,
        "to": to,
        "content": content,
        "kind": kind,
        "meta": meta,
        "deliveries": {} if to == "human" else {to: {"step": "accepted"}},
    }


def caused(cause: str | None = ID) -> dict[str, Any]:
    return {"root": "0000", "cause": cause, "hops": 2}


def step(name: str, message_id: str = ID, **more: str) -> dict[str, Any]:
    return {"message_id": message_id, "step": name, "reason": "", **more}


def test_what_it_says_to_the_asker_in_the_turn_of_the_question_is_the_answer() -> None:
    assert question().see("message", said(chain=caused())) == Outcome(True, "42", "as message aa01", "aa01")


def test_an_answer_that_the_guard_holds_back_is_one_once_it_is_let_go() -> None:
    asked = question()
    stopped = said(chain=caused()) | {"deliveries": {"alice": {"step": "held", "reason": "loop_guard"}}}
    assert asked.see("message", stopped) is None
    assert "held back" in asked.given_up(1).why
    assert asked.see("delivery", step("accepted", "aa01")) is None
    released = asked.see("delivery", step("held", "aa01") | {"reason": "ask"})
    assert released == Outcome(True, "42", "as message aa01", "aa01")


def test_a_reply_to_the_question_is_the_answer_whomever_it_goes_to() -> None:
    assert question().see("message", said(to="carol", reply_to=ID)) == Outcome(True, "42", "as message aa01", "aa01")


@pytest.mark.parametrize(
    "message",
    [
        said(),
        said(chain=caused("other")),
        said(chain=caused(None)),
        said(sender="carol", chain=caused()),
        said(kind="input", chain=caused()),
        said(chain="nonsense"),
        said(reply_to="other"),
    ],
)
def test_other_messages_are_no_answer(message: dict[str, Any]) -> None:
    asked = question()
    assert asked.see("message", message) is None
    assert asked.see("delivery", step("turn_ended")) is None
    assert not asked.given_up(1).answered


def test_a_question_of_its_own_to_somebody_else_is_not_taken_for_the_answer() -> None:
    asked = question()
    assert asked.see("message", said(to="carol", content="what does alice mean?", chain=caused())) is None
    outcome = asked.see("message", said(content="it is 42", chain=caused()))
    assert outcome is not None
    assert outcome.answer == "it is 42"


def test_what_it_said_to_others_is_the_answer_when_nothing_better_came() -> None:
    asked = question()
    asked.see("message", said(to="human", content="first", chain=caused()))
    asked.see("message", said(to="carol", content="second", chain=caused()))
    assert asked.see("delivery", step("turn_ended")) is None
    assert asked.given_up(1) == Outcome(True, "first", "as message aa01", "aa01")


def test_the_text_of_its_turn_is_the_answer_when_it_said_nothing() -> None:
    asked = question()
    assert asked.see("delivery", step("turn_started")) is None
    outcome = asked.see("delivery", step("turn_ended", answer="forty-two"))
    assert outcome == Outcome(True, "forty-two", "as the text of its turn")


def test_an_empty_text_is_no_answer() -> None:
    asked = question()
    assert asked.see("delivery", step("turn_ended", answer=" \n")) is None
    assert asked.over
    assert asked.given_up(1) == Outcome(False, why="its turn ended and it said nothing to anybody")


@pytest.mark.parametrize("end", ["refused", "expired", "unknown"])
def test_a_question_that_cannot_arrive_is_waited_for_no_longer(end: str) -> None:
    outcome = question().see("delivery", {**step(end), "reason": "the agent was removed"})
    assert outcome == Outcome(False, why=f"the question is {end} (the agent was removed)")


def test_steps_of_other_messages_say_nothing() -> None:
    asked = question()
    assert asked.see("delivery", step("turn_ended", message_id="other", answer="not this")) is None
    assert asked.standing == "accepted"


def test_giving_up_says_where_the_question_stands() -> None:
    asked = question()
    asked.see("delivery", {**step("held"), "reason": "busy"})
    assert "no answer within 5 s: the question is held (busy)" in asked.given_up(5).why
