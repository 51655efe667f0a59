"""csp-protocol(7) against the code: the same error codes, events and limits on both sides, and sentences that are said.

The examples of methods are asked of a whole cspd in real/test_gateway.
"""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cspd.control import params
from cspd.control.views import event_json
from cspd.errors import EXIT_STATUS
from cspd.gateway import feed, guests, saying
from cspd.gateway.history import Event, Message, message_json
from cspd.gateway.loopguard import Stop
from cspd.gateway.moderator import stop_json
from cspd.transport import IN_FLIGHT_MAX
from cspd.web import crowd, exchange, mcp, websocket
from cspd.web.requests import STATUS
from cspd.wire import frames, rpc

pytestmark = pytest.mark.pure

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "man" / "csp-protocol.7").read_text().replace("\\e", "\\")


def section(title: str) -> str:
    return PAGE.partition(f"\n.Sh {title}\n")[2].partition("\n.Sh ")[0]


def calls(*folders: str) -> Iterator[ast.Call]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def word(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


# ---------------------------------------------------------------------- errors


def pattern(sentence: ast.AST) -> str:
    """Of all that it can become; a sentence that is put together elsewhere can become anything."""
    match sentence:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(re.escape(text) if (text := word(part)) is not None else ".+" for part in parts)
    return ".+"


@cache
def errors_in_the_code() -> dict[str, list[str]]:
    """Code -> patterns of the sentences with which cspd, its keeper and its sidecars say it."""
    found: dict[str, list[str]] = {}
    for call in calls("cspd"):
        if name_of(call) in ("CspError", "__init__") and len(call.args) > 1 and (code := word(call.args[0])):
            found.setdefault(code, []).append(pattern(call.args[1]))
    for path in (ROOT / "cspd" / "keeper").glob("*.py"):  # it writes its answers without CspError
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                fields = {word(key): value for key, value in zip(node.keys, node.values, strict=True) if key}
                if "sentence" in fields and (code := word(fields["code"])):
                    found.setdefault(code, []).append(pattern(fields["sentence"]))
    return found


def errors_in_the_page() -> dict[str, str]:
    """Code -> its example."""
    entry = re.compile(r"^\.It Ic (\S+)\n(?:(?!\.Bd|\.It).*\n)*\.Bd -literal -compact\n((?:(?!\.Ed).*\n)+)", re.M)
    return {code: " ".join(lines.split("\n")).strip() for code, lines in entry.findall(section("ERROR CODES"))}


def test_the_page_has_every_error_code_and_no_other() -> None:
    listed = re.findall(r"^\.It Ic (.+)$", section("ERROR CODES"), flags=re.M)
    assert sorted(listed) == sorted(set(listed)), "each once"
    assert set(listed) == set(errors_in_the_code())
    assert set(errors_in_the_page()) == set(listed), "each with an example"


@pytest.mark.parametrize(("code", "example"), errors_in_the_page().items())
def test_an_example_of_an_error_is_a_sentence_that_is_said(code: str, example: str) -> None:
    patterns = errors_in_the_code()[code]
    assert any(re.fullmatch(pattern, example, flags=re.S) for pattern in patterns), patterns


def test_tables_of_errors_name_none_that_nobody_raises() -> None:
    raised = set(errors_in_the_code())
    by_cspctl = {code for call in calls("cspctl") if name_of(call) == "CspError" and (code := word(call.args[0]))}
    assert set(rpc.NUMBERS) <= raised
    assert set(STATUS) <= raised
    assert set(EXIT_STATUS) <= raised | by_cspctl


# ---------------------------------------------------------------------- events


def events_in_the_code() -> set[str]:
    places = {"add_event": 0, "note_agent": 2, "Event": 2}
    found = set[str]()
    for call in calls("cspd/gateway", "cspd/control", "cspd/web", "cspd"):
        at = places.get(name_of(call))
        if at is not None and len(call.args) > at and (type := word(call.args[at])):
            found.add(type)
    return found | {"agent", "input", "dropped"}  # note_agent's default; a kind of message; of one subscriber alone


def event_examples() -> list[dict[str, Any]]:
    blocks = re.findall(r"^\.Bd -literal -compact\n<-- (.*?)^\.Ed", section("EVENTS"), flags=re.S | re.M)
    return [json.loads(" ".join(block.split("\n")))["params"] for block in blocks]


def test_the_page_has_every_event_with_an_example_and_no_other() -> None:
    listed = re.findall(r"^\.It Ic (\S+)$", section("EVENTS"), flags=re.M)
    assert set(listed) == events_in_the_code()
    assert {example["type"] for example in event_examples()} == set(listed)


def shown(type: str) -> dict[str, Any]:
    return next(example for example in event_examples() if example["type"] == type)


def test_examples_of_events_have_the_fields_that_events_have() -> None:
    said = Message(20, "0f3c", "lobby", "human", "shell", "run the tests", {}, 1.0, "input")
    line = event_json(Event(20, 1.0, "message", "lobby", "human", 20, message_json(said, {})))
    assert line.keys() == shown("input").keys()
    assert line["message"].keys() == shown("input")["message"].keys() == shown("message")["message"].keys()
    stop = Stop("pair", ("a", "b"), "lobby", ("a", "b"), "why", 1.0)
    guard = event_json(Event(31, 1.0, "guard", "lobby", "", None, {"held": True, **stop_json(stop)}))
    assert guard.keys() == shown("guard").keys()


# ---------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("64 KiB of .Ql content", saying.CONTENT_MAX == 64 << 10),
        ("8 KiB of .Ql meta", params.META_MAX == 8 << 10),
        ("4 KiB of .Ql capabilities", guests.CAPABILITIES_MAX == 4 << 10),
        ("1 MiB a message", frames.FRAME_MAX == exchange.BODY_MAX == 1 << 20),
        ("16 KiB a request's head", exchange.HEAD_MAX == 16 << 10),
        ("10 seconds for a head from its first byte, 30 for a body, 30 between two requests", exchange.HEAD_SEC == 10),
        ("30 for a body, 30 between", exchange.BODY_SEC == exchange.IDLE_SEC == 30),
        ("5 seconds without taking a byte", exchange.SEND_SEC == 5),
        ("1024 events or 16 MiB not read", (feed.EVENTS_MAX, feed.BYTES_MAX) == (1024, 16 << 20)),
        ("20 seconds between pings, and as long for an answer", websocket.PING_SEC == websocket.PONG_SEC == 20),
        ("256 connections that have shown no token", crowd.STRANGERS_MAX == 256),
        ("256 requests of one connection", IN_FLIGHT_MAX == 256),
        ("1000 guests", guests.GUESTS_MAX == 1000),
        ("a comment every 15 seconds", mcp.COMMENT_SEC == 15),
    ],
)
def test_limits_are_those_of_the_page(words: str, value: bool) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"^\.It ", "", PAGE, flags=re.M))
    assert words in text.replace(" ,", ",")
    assert value
