"""Verbs about messages and rooms, against a stand-in for cspd."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from cspctl.main import main
from cspd.errors import FAILED, NO_SUCH, TIMED_OUT, USAGE, CspError

pytestmark = pytest.mark.real

Capture = pytest.CaptureFixture[str]
Make = Callable[..., dict[str, Any]]
ID = "0123456789abcdef"


@pytest.fixture
def accepting(cspd: Any) -> Any:
    cspd.answers["chat.message"] = {"message_id": ID, "seq": 7, "room": "lobby", "recipients": ["beta"]}
    return cspd


def type_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_sending_prints_the_id_and_says_only_what_was_given(accepting: Any, capsys: Capture) -> None:
    assert main(["send", "--to", "beta", "hello", "world"]) == 0
    assert capsys.readouterr().out == f"{ID}\n"
    assert accepting.params("chat.message") == {"to": "beta", "content": "hello world"}


def test_every_option_of_send_reaches_cspd(accepting: Any) -> None:
    words = ["--to", "a,b", "--to", "c", "--room", "dev", "--reply-to", "77", "--urgent", "hi"]
    assert main(["send", *words]) == 0
    wanted = {"to": ["a", "b", "c"], "content": "hi", "room": "dev", "reply_to": "77", "urgent": True}
    assert accepting.params("chat.message") == wanted


@pytest.mark.parametrize("words", [[], ["-"]])
def test_without_a_message_stdin_is_sent_without_its_last_newlines(
    words: list[str], accepting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_in(monkeypatch, "größe\n  two\n\n".encode())
    assert main(["send", "--to", "beta", *words]) == 0
    assert accepting.params("chat.message")["content"] == "größe\n  two"


def test_of_whom_it_does_not_reach_now_one_hears_at_once(accepting: Any, capsys: Capture) -> None:
    accepting.answers["chat.message"]["held"] = {"beta": "offline"}
    assert main(["send", "--to", "beta", "hello"]) == 0
    assert tuple(capsys.readouterr()) == (f"{ID}\n", "beta: held (offline): it waits until that has changed\n")


def test_that_a_message_is_kept_for_want_of_a_connection_is_said(accepting: Any, capsys: Capture) -> None:
    why = "cspd: not connected now: token: not known, or revoked"
    accepting.answers["chat.message"] |= {"kept": True, "why": why}
    assert main(["send", "--to", "beta", "hello"]) == 0
    assert capsys.readouterr().err == f"{why}; the message is kept until it is back\n"


def test_words_that_are_no_text_are_refused_and_not_changed(accepting: Any, capsys: Capture) -> None:
    assert main(["send", "--to", "beta", "caf\udce9", "au lait"]) == FAILED
    assert "message: byte 3: not UTF-8" in capsys.readouterr().err
    assert accepting.asked == []


@pytest.mark.parametrize(
    ("data", "problem", "status"),
    [
        (b"\n", "message: empty", USAGE),
        (b"x" * 65537, "message: more than 65536 bytes", FAILED),
        (b"ab\xff", "message: byte 2: not UTF-8", FAILED),
    ],
)
def test_stdin_that_is_no_message_is_refused_before_anything_is_sent(
    data: bytes, problem: str, status: int, accepting: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    type_in(monkeypatch, data)
    assert main(["send", "--to", "beta"]) == status
    assert problem in capsys.readouterr().err
    assert accepting.asked == []


def test_a_message_of_exactly_the_limit_is_sent(accepting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, b"x" * 65536 + b"\n")
    assert main(["send", "--to", "beta"]) == 0
    assert len(accepting.params("chat.message")["content"]) == 65536


@pytest.mark.parametrize(
    ("wanted", "reached", "shown", "status"),
    [
        ("submitted", "submitted", "submitted", 0),
        ("submitted", "turn_ended", "submitted", 0),
        ("turn_started", "submitted", "submitted", FAILED),
        ("submitted", "refused", "refused", FAILED),
        ("submitted", "expired", "expired", FAILED),
        ("submitted", "unknown", "unknown", FAILED),
    ],
)
def test_waiting_prints_the_step_and_fails_when_it_can_not_come(
    wanted: str, reached: str, shown: str, status: int, accepting: Any, capsys: Capture
) -> None:
    deliveries = {"beta": {"step": reached, "reason": "why", "ts": 1.0}}
    accepting.answers["chat.wait"] = {"message_id": ID, "deliveries": deliveries}
    assert main(["send", "--to", "beta", "--wait", wanted, "--timeout", "2.5", "hi"]) == status
    printed = capsys.readouterr()
    assert printed.out == f"{ID}\n{shown}\n"
    assert printed.err == f"beta: {reached} (why)\n"
    assert accepting.params("chat.wait") == {"message_id": ID, "step": wanted, "timeout_sec": 2.5}


def test_waiting_for_several_names_each_and_fails_for_one(accepting: Any, capsys: Capture) -> None:
    steps = {"a": {"step": "submitted", "reason": ""}, "b": {"step": "expired", "reason": ""}}
    accepting.answers["chat.wait"] = {"message_id": ID, "deliveries": steps}
    assert main(["send", "--to", "a,b", "--wait", "submitted", "hi"]) == FAILED
    assert capsys.readouterr().out == f"{ID}\na: submitted\nb: expired\n"


def test_a_wait_that_is_over_exits_6_and_has_printed_the_id(accepting: Any, capsys: Capture) -> None:
    accepting.answers["chat.wait"] = CspError("timed-out", "message: 2 s: beta is held (dialog)")
    assert main(["send", "--to", "beta", "--wait", "submitted", "--timeout", "2", "hi"]) == TIMED_OUT
    assert capsys.readouterr().out == f"{ID}\n"


def test_waiting_as_json_is_one_object(accepting: Any, capsys: Capture) -> None:
    accepting.answers["chat.wait"] = {"message_id": ID, "deliveries": {"beta": {"step": "submitted", "reason": ""}}}
    assert main(["--json", "send", "--to", "beta", "--wait", "submitted", "hi"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["message_id"], shown["deliveries"]["beta"]["step"]) == (ID, "submitted")


def test_history_passes_its_filters_and_prints_a_line_a_message(cspd: Any, make_message: Make, capsys: Capture) -> None:
    cspd.answers["chat.history"] = {"messages": [make_message(content="one"), make_message(content="two")]}
    words = ["--room", "dev", "-n", "2", "--from", "a", "--to", "b", "--grep", "o"]
    assert main(["history", *words]) == 0
    assert cspd.params("chat.history") == {"room": "dev", "limit": 2, "from": "a", "to": "b", "grep": "o"}
    assert [line.split(" alpha ")[1] for line in capsys.readouterr().out.splitlines()] == [
        "→ beta: one",
        "→ beta: two",
    ]


def test_history_shows_the_ids_that_other_verbs_ask_for(cspd: Any, make_message: Make, capsys: Capture) -> None:
    message = make_message(content="one")
    cspd.answers["chat.history"] = {"messages": [message]}
    assert main(["history"]) == 0
    assert message["message_id"] not in capsys.readouterr().out
    assert main(["history", "--ids"]) == 0
    assert f" {message['message_id']} " in capsys.readouterr().out


def test_history_as_json_is_a_line_a_message(cspd: Any, make_message: Make, capsys: Capture) -> None:
    messages = [make_message(content="a\nb"), make_message(seq=8)]
    cspd.answers["chat.history"] = {"messages": messages}
    assert main(["history", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == messages
    assert cspd.params("chat.history") == {"limit": 50}


def test_history_since_a_cursor_asks_until_nothing_is_left(cspd: Any, make_message: Make, capsys: Capture) -> None:
    messages = [make_message(seq=seq) for seq in range(1, 1202)]

    def page(params: dict[str, Any]) -> dict[str, Any]:
        return {"messages": [m for m in messages if m["seq"] > params["since"]][: params["limit"]]}

    cspd.answers["chat.history"] = page
    assert main(["history", "--since", "100", "--json"]) == 0
    shown = [json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()]
    assert shown == list(range(101, 1202))
    assert main(["history", "--since", "100", "-n", "600", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 600


def test_watch_prints_events_as_they_come(cspd: Any, end: object, make_message: Make, capsys: Capture) -> None:
    answers = iter([{"cursor": 5}, CspError("no-such-room", "room: 'lobby': not known")])
    cspd.answers["events.subscribe"] = lambda params: next(answers)
    event = {"room": "lobby", "agent": "beta", "ts": 1.0}
    cspd.after["events.subscribe"] = [
        {**event, "type": "message", "cursor": 6, "message": make_message()},
        {**event, "type": "delivery", "cursor": 7, "message_id": ID, "step": "typing", "reason": ""},
        {"cursor": 8, "type": "agent", "ts": 1.0, "agent": "beta", "state": "running", "activity": "busy"},
    ]
    cspd.after["events.subscribe"].append(end)
    assert main(["watch", "--since", "5", "--room", "lobby"]) == NO_SUCH
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("  ")[2].partition(":")[0] for line in lines[1:]] == ["beta", "beta"]
    assert lines[0].endswith("alpha → beta: hello")


def test_rooms_and_their_members_are_tables(cspd: Any, make_agent: Make, capsys: Capture) -> None:
    known = {"room": "lobby", "topic": "ships", "members": ["alpha", "web"], "messages": 3, "paused": True}
    cspd.answers |= {"room.list": [known], "room.get": known, "agent.list": [make_agent()]}
    assert main(["rooms"]) == main(["room", "lobby"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ROOM   MEMBERS     MESSAGES  PAUSED  GUARD  TOPIC",
        "lobby  alpha, web  3         yes     -      ships",
        "lobby - ships: alpha, web; messages 3; paused",
        "MEMBER  STATE    ACTIVITY  QUEUED",
        "alpha   running  idle      0",
        "web     -        -         -",
        "guard: holds nothing",
    ]


def test_what_the_loop_guard_holds_is_shown_with_what_to_do(cspd: Any, make_agent: Make, capsys: Capture) -> None:
    stop = {"kind": "chain", "names": ["alpha", "web"], "why": "12 messages\x1b[2J", "since": 1.0}
    known = {"room": "lobby", "topic": "", "members": ["alpha"], "messages": 3, "paused": False, "guard": [stop]}
    cspd.answers |= {"room.list": [known], "room.get": known, "agent.list": [make_agent(guard="12 messages")]}
    assert main(["rooms"]) == main(["room", "lobby"]) == 0
    out = capsys.readouterr().out
    assert "lobby  alpha    3         no      held" in out
    assert "guard: 12 messages\\x1b[2J: held since" in out
    assert "`cspctl resume --room lobby`" in out


FLOOR = {"order": ["beta", "alpha"], "speaker": "beta", "round": 1, "rounds": 2, "spoken": True}
VOTE = {"question": "Which?", "choices": ["A", "B"], "ballots": {"beta": "A"}, "missing": ["alpha"]}


@pytest.mark.parametrize(
    ("words", "method", "params"),
    [
        (("--topic", "ships"), "room.set", {"topic": "ships"}),
        (("--topic", ""), "room.set", {"topic": ""}),
        (("--mode", "freeform"), "room.set", {"mode": "freeform"}),
        (("--order", "b,a", "--rounds", "3"), "room.set", {"mode": "turns", "order": ["b", "a"], "rounds": 3}),
        (("--rounds", "2", "--turn-sec", "5"), "room.set", {"mode": "turns", "rounds": 2, "turn_sec": 5.0}),
        (("next",), "room.next", {}),
        (("vote", "Which?", "A", "B"), "room.vote", {"question": "Which?", "choices": ["A", "B"]}),
        (
            ("vote", "Which?", "A", "B", "--timeout", "9"),
            "room.vote",
            {"question": "Which?", "choices": ["A", "B"], "timeout_sec": 9.0},
        ),
        (("close",), "room.vote", {"close": True}),
    ],
)
def test_a_room_is_driven_and_then_shown(
    cspd: Any, make_agent: Make, capsys: Capture, words: tuple[str, ...], method: str, params: dict[str, Any]
) -> None:
    known = {"room": "lobby", "topic": "", "members": ["alpha"], "messages": 3, "floor": FLOOR, "vote": VOTE}
    cspd.answers |= {method: known, "agent.list": [make_agent()]}
    assert main(["room", "lobby", *words]) == 0
    assert cspd.params(method) == {"room": "lobby", **params}
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "turns: [beta] → alpha; round 1 of 2, has spoken",
        "vote: Which? (A, B); ballots: 1; missing: alpha",
        "guard: holds nothing",
    ]


def test_the_length_of_a_turn_alone_begins_none(cspd: Any, capsys: Capture) -> None:
    assert main(["room", "lobby", "--turn-sec", "5"]) == USAGE
    assert "--turn-sec: of which turns?" in capsys.readouterr().err
    assert cspd.asked == []


def test_a_ballot_of_the_person_is_answered_with_what_it_was(cspd: Any, capsys: Capture) -> None:
    cspd.answers["room.vote"] = {"message_id": ID}
    assert main(["room", "lobby", "vote", "A"]) == 0
    assert cspd.params("room.vote") == {"room": "lobby", "choice": "A"}
    assert capsys.readouterr().out == "voted: A\n"


@pytest.mark.parametrize("words", [("nxt",), ("vote",), ("vote", "Q", "A"), ("next", "--topic", "x"), ("next", "now")])
def test_words_that_a_room_does_not_know_are_refused(cspd: Any, words: tuple[str, ...]) -> None:
    assert main(["room", "lobby", *words]) == USAGE
    assert cspd.asked == []


def test_resume_tells_what_the_loop_guard_lets_go(cspd: Any, capsys: Capture) -> None:
    cspd.answers |= {"agent.resume": {"released": [{"why": "12 messages"}]}}
    assert main(["resume", "--room", "lobby"]) == 0
    assert capsys.readouterr().err == "goes on: 12 messages\n"


def test_the_inbox_says_what_holds_each_message(cspd: Any, make_message: Make, capsys: Capture) -> None:
    cspd.answers["inbox.get"] = [make_message(content="first\nsecond")]
    assert main(["inbox", "beta"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert (row[0], row[-4:]) == (ID, ["alpha", "held", "busy", "first…"])


def test_an_empty_inbox_is_said_on_stderr(cspd: Any, capsys: Capture) -> None:
    cspd.answers["inbox.get"] = []
    assert main(["inbox", "beta"]) == 0
    assert tuple(capsys.readouterr()) == ("", "beta: nothing waits\n")


def test_the_story_of_a_message_is_told_in_the_order_of_time(cspd: Any, make_message: Make, capsys: Capture) -> None:
    def step(name: str, ts: float, **more: str) -> dict[str, Any]:
        return {"step": name, "reason": "", "evidence": "", "ts": ts, **more}

    steps = {
        "beta": [step("held", 2.0, reason="busy"), step("submitted", 4.0, evidence="box\x1b empty")],
        "gamma": [step("typing", 3.0)],
    }
    cspd.answers["chat.get"] = make_message(steps=steps)
    assert main(["message", ID[:6]]) == 0
    shown = [line.partition("   ")[2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert shown == ["beta: held (busy)", "gamma: typing", "beta: submitted: box\\x1b empty"]


def test_pausing_is_for_an_agent_or_for_a_room(cspd: Any) -> None:
    cspd.answers |= {"agent.pause": {}, "agent.resume": {}}
    assert main(["pause", "beta"]) == main(["resume", "--room", "dev"]) == 0
    assert cspd.asked == [("agent.pause", {"name": "beta"}), ("agent.resume", {"room": "dev"})]
