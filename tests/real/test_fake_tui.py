"""Messages to a program with an input box that misbehaves: typed once, or held, or unknown; never a blind Enter."""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from real.instance import Instance, eventually
from real.outer import Outer
from real.rpc import call

pytestmark = pytest.mark.real

PROGRAM = Path(__file__).with_name("fake_tui.py")
PROFILE = """
extends = "default"
[typing]
settle_sec = 0.15
human_quiet_sec = 0.5
echo_timeout_sec = 4.0
[[rule]]
name = "framed-box"
activity = "idle"
priority = 40
region = "bottom"
rows = 40
match = ['^❯', '^─{8}']
when = { bracketed_paste = true }
"""
ENVELOPE = "[Context: human sent a message]\n"
PASTES = re.compile(rb"\x1b\[200~.*?\x1b\[201~", re.DOTALL)
DONE = ("submitted", "turn_started", "turn_ended")


@attrs.frozen
class Fake:
    """The program as an agent of an instance, and what it has written down."""

    instance: Instance
    name: str
    folder: Path

    def start(self, profile: str = "fake", **manners: Any) -> None:
        self.folder.mkdir()
        options = ("--profile", profile, "--restart", "no")
        command = (sys.executable, str(PROGRAM), str(self.folder), json.dumps(manners))
        self.instance.add(self.name, *command, options=options)
        eventually(lambda: self.log("manners"), "the program has started")

    def tell(self, **manners: object) -> None:
        """Change its manners; returns when it has taken them."""
        known = len(self.log("manners"))
        with open(self.folder / "control", "w") as control:
            control.write(json.dumps(manners) + "\n")
        eventually(lambda: len(self.log("manners")) > known, f"{manners} taken")

    def log(self, event: str) -> list[dict[str, Any]]:
        written = self.folder / "log"
        lines = written.read_text().splitlines() if written.exists() else []
        entries = [json.loads(line) for line in lines]
        return [entry for entry in entries if entry["event"] == event]

    def submitted(self) -> list[str]:
        """What it took as submitted, without our header."""
        return [entry["text"].removeprefix(ENVELOPE) for entry in self.log("submitted")]

    def received(self) -> bytes:
        return "".join(entry["data"] for entry in self.log("bytes")).encode("latin-1")

    @property
    def ran(self) -> bool:
        return (self.folder / "ran").exists()

    def call(self, method: str, **params: object) -> Any:
        return call(self.instance.runtime / "cspd.sock", method, **params)

    def send(self, text: str) -> str:
        return str(self.call("chat.message", to=self.name, content=text)["message_id"])

    def story(self, message_id: str) -> list[tuple[str, str]]:
        """(step, reason) in order."""
        steps = self.call("chat.get", message_id=message_id)["steps"].get(self.name, [])
        return [(step["step"], step["reason"] or "") for step in steps]

    def wait(self, message_id: str, *steps: str, reason: str = "") -> None:
        """Until one of these is its newest step, and `reason` was one for it: each is in the story once."""

        def there() -> bool:
            story = self.story(message_id)
            return bool(story) and story[-1][0] in steps and any(reason in why for step, why in story if step in steps)

        try:
            eventually(there, f"{' or '.join(steps)} {reason}")
        except pytest.fail.Exception as exc:
            pytest.fail(f"{exc}\n{self.story(message_id)}\n{self.instance.screen(self.name)}")

    def deliver(self, text: str) -> str:
        message_id = self.send(text)
        self.wait(message_id, *DONE)
        return message_id

    def wait_received(self, condition: Callable[[bytes], bool], what: str) -> None:
        eventually(lambda: condition(self.received()), what)

    def attach(self) -> Outer:
        return Outer([sys.executable, "-m", "cspctl", "attach", self.name], self.instance.env)


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """One instance for all tests here: every test has an agent of its own in it."""
    root = Path(tempfile.mkdtemp(prefix="csp"))  # short: a socket's path holds 107 bytes
    (root / "run").mkdir()
    profiles = root / "config" / "csp" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "fake.toml").write_text(PROFILE)
    instance = Instance(root)
    instance.start()
    try:
        yield instance
        instance.stop()
        assert "Traceback" not in instance.log, instance.log
    finally:
        for pid in instance.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root)


@pytest.fixture
def fake(shared: Instance) -> Iterator[Fake]:
    name = f"f{len(list(shared.root.glob('f*')))}"
    yield Fake(shared, name, shared.root / name)
    shared.ctl("remove", name)


def settle(fake: Fake) -> None:
    """Give a second copy the time to show up that a first one took; the message behind it proves that none came."""
    fake.deliver("the last one")


def clear_the_box(fake: Fake) -> None:
    """As a person does who was told that something of ours may stand in it."""
    with fake.attach() as outer:
        outer.until_shown("? for shortcuts")
        outer.type("\x15")
        fake.wait_received(lambda data: data.endswith(b"\x15"), "^U has arrived")


CALM = {"echo_ms": 0, "deaf_ms": 0, "newline_ms": 0, "popup": False, "redraw_ms": 0, "placeholder_over": 0}
WAYS: list[dict[str, Any]] = [
    {},
    {"echo_ms": 800},
    {"deaf_ms": 800},
    {"newline_ms": 100},
    {"popup": True},
    {"redraw_ms": 30},
    {"redraw_ms": 30, "echo_ms": 300, "busy_ms": 300},
    {"placeholder_over": 40},
    {"frozen_ms": 1000},
]


@pytest.mark.parametrize(("alternate", "ways"), [(True, WAYS), (False, WAYS[:1])], ids=["alternate", "primary screen"])
def test_a_message_is_submitted_once_and_whole_however_the_program_behaves(
    fake: Fake, alternate: bool, ways: list[dict[str, Any]]
) -> None:
    fake.start(alternate=alternate)
    texts = []
    for way in ways:
        fake.tell(**CALM | {"busy_ms": 0, "frozen_ms": 0} | way)
        for text in (f"{way} in a line", f"{way} {'with long words ' * 50}\nto the end"):
            fake.deliver(text)
            texts.append(text)
            assert [text.rstrip("\n") for text in fake.submitted()] == texts
    assert not fake.log("empty-enter"), "Enter on an empty box"


def test_with_the_default_profile_a_program_that_never_stops_drawing_is_left_alone(fake: Fake) -> None:
    fake.start(profile="default", redraw_ms=30)
    message_id = fake.send("hello")
    fake.wait(message_id, "held", reason="busy")
    fake.tell(redraw_ms=0)
    fake.wait(message_id, *DONE)
    assert fake.submitted() == ["hello"]


def test_with_the_default_profile_an_unknown_program_with_a_framed_box_gets_its_messages(fake: Fake) -> None:
    fake.start(profile="default", placeholder_over=200, busy_ms=300, echo_ms=100)
    texts = ["short", "long " * 60 + "end", "third"]
    for text in texts:
        fake.deliver(text)
    assert fake.submitted() == texts


@pytest.mark.parametrize("redraw_ms", [0, 30])
def test_nothing_is_typed_into_an_open_dialog_and_the_message_follows_when_it_is_closed(
    fake: Fake, redraw_ms: int
) -> None:
    fake.start(dialog="now", redraw_ms=redraw_ms)
    message_id = fake.send("after the dialog")
    fake.wait(message_id, "held", reason="dialog")
    assert fake.received() == b""
    fake.tell(dialog="close")
    fake.wait(message_id, *DONE)
    assert fake.submitted() == ["after the dialog"]
    assert not fake.ran


def test_a_dialog_that_opens_while_the_text_is_pasted_is_not_answered(fake: Fake) -> None:
    fake.start(dialog="paste")
    message_id = fake.send("it is lost")
    fake.wait(message_id, "typing", reason="dialog")
    fake.tell(dialog="close")
    fake.wait(message_id, "unknown")
    assert b"\r" not in fake.received()
    clear_the_box(fake)
    settle(fake)
    assert fake.submitted() == ["the last one"], "what is unknown is never typed again"
    assert not fake.ran


def test_a_dialog_that_covers_the_text_before_it_is_seen_is_not_answered_and_the_text_is_submitted_later(
    fake: Fake,
) -> None:
    fake.start(dialog="cover")
    message_id = fake.send("covered")
    fake.wait_received(lambda data: b"\x1b[201~" in data, "the paste has arrived")
    assert b"\r" not in fake.received()
    fake.tell(dialog="close")
    fake.wait(message_id, *DONE)
    assert fake.submitted() == ["covered"]
    assert not fake.ran


def test_a_dialog_that_opens_between_the_text_and_enter_is_not_answered_and_the_text_is_submitted_later(
    fake: Fake,
) -> None:
    fake.start(dialog="echo")
    message_id = fake.send("almost submitted")
    fake.wait(message_id, "echoed", reason="dialog")
    assert b"\r" not in fake.received()
    fake.tell(dialog="close")
    fake.wait(message_id, *DONE)
    settle(fake)
    assert fake.submitted() == ["almost submitted", "the last one"]
    assert not fake.ran


@pytest.mark.parametrize("frozen_ms", [0, 1500])
def test_a_dialog_that_a_submitted_message_opens_is_answered_by_nobody(fake: Fake, frozen_ms: int) -> None:
    """Frozen for longer than the time after which Enter is tried again: a second Enter would wait in the tty."""
    fake.start(dialog="submit", frozen_ms=frozen_ms)
    fake.deliver("run something")
    second = fake.send("the next")
    fake.wait(second, "held", reason="dialog")
    assert not fake.ran
    assert not fake.log("answer")
    fake.tell(dialog="close", frozen_ms=0)
    fake.wait(second, *DONE)
    assert fake.submitted() == ["run something", "the next"]


def test_text_that_never_shows_gets_no_enter_and_is_never_typed_again(fake: Fake) -> None:
    fake.start(echoes=False)
    message_id = fake.send("into the dark")
    fake.wait(message_id, "unknown")
    assert fake.received().count(b"\x1b[200~") == 1
    assert b"\r" not in fake.received()
    next_id = fake.send("the next")
    fake.wait(next_id, "held", reason="leftover")  # the first may stand in the box: nothing is typed behind it
    fake.instance.ctl("pause", fake.name)
    fake.instance.ctl("restart", fake.name)
    fake.tell(echoes=True)
    fake.instance.ctl("resume", fake.name)
    fake.wait(next_id, *DONE)
    assert fake.submitted() == ["the next"]


def test_a_message_for_a_busy_program_waits_until_its_turn_has_ended(fake: Fake) -> None:
    fake.start(busy_ms=2500)
    fake.deliver("the first")
    second = fake.send("the second")
    fake.wait(second, "held", reason="busy")
    assert fake.received().count(b"\x1b[200~") == 1
    fake.wait(second, *DONE)
    first, last = fake.log("submitted")
    assert last["ts"] - first["ts"] > 2.5
    assert fake.submitted() == ["the first", "the second"]


def test_a_program_that_is_killed_before_enter_gets_the_message_never_again(fake: Fake) -> None:
    fake.start(echo_ms=3000)
    message_id = fake.send("half done")
    fake.wait_received(lambda data: b"\x1b[201~" in data, "the paste has arrived")
    os.kill(fake.instance.agent(fake.name)["pid"], signal.SIGKILL)
    fake.wait(message_id, "unknown")
    fake.instance.ctl("start", fake.name)
    fake.tell(echo_ms=0)
    settle(fake)
    assert fake.submitted() == ["the last one"]


def test_control_characters_and_the_end_of_the_paste_in_a_message_stay_text(fake: Fake) -> None:
    fake.start()
    fake.deliver("a\x1b[201~\rb\x03\x15c\td\x1b[200~e")
    assert fake.submitted() == ["a[201~\nbc    d[200~e"]


# --- a person at the same terminal -----------------------------------------------------------------------------------


def keys_of_the_person(data: bytes) -> bytes:
    """What is left without our pastes and the Enter of each."""
    return re.sub(rb"\x1b\[200~.*?\x1b\[201~(\r)?", b"", data, flags=re.DOTALL)


def test_a_persons_draft_is_neither_joined_nor_lost(fake: Fake) -> None:
    fake.start()
    with fake.attach() as outer:
        outer.until_shown("? for shortcuts")
        outer.type("my draft")
        outer.until_shown("❯ my draft")
        message_id = fake.send("a message")
        fake.wait(message_id, "held", reason="human_typing")
        time.sleep(0.7)  # longer than human_quiet_sec: silence does not end a draft
        assert fake.story(message_id)[-1] == ("held", "human_typing")
        outer.type(" goes on\r")
        fake.wait(message_id, *DONE)
    assert fake.submitted() == ["my draft goes on", "a message"]


def test_the_keys_of_a_person_who_types_all_the_time_arrive_complete_and_in_order(fake: Fake) -> None:
    fake.start(busy_ms=100)
    typed = b""
    with fake.attach() as outer:
        outer.until_shown("? for shortcuts")
        ids = [fake.send(f"message {n}") for n in range(3)]
        for n in range(60):
            key = b"%02d" % n + (b"\r" if n % 6 == 5 else b" ")
            outer.type(key)
            typed += key
            time.sleep(0.7 if n % 12 == 5 else 0.05)  # the person's own pace: some pauses let a message in
        for message_id in ids:
            fake.wait(message_id, *DONE)
    pastes = PASTES.findall(fake.received())
    assert len(pastes) == 3
    assert keys_of_the_person(fake.received()) == typed
    assert [text for text in fake.submitted() if text.startswith("message")] == [f"message {n}" for n in range(3)]
    lines = [" ".join(f"{n:02d}" for n in range(first, first + 6)) for first in range(0, 60, 6)]
    assert [text for text in fake.submitted() if not text.startswith("message")] == lines


def test_keys_that_come_while_a_message_is_typed_follow_right_behind_it(fake: Fake) -> None:
    fake.start(echo_ms=600)
    with fake.attach() as outer:
        outer.until_shown("? for shortcuts")
        message_id = fake.send("a message")
        fake.wait_received(lambda data: b"\x1b[201~" in data, "the paste has arrived")
        outer.type("own words\r")
        fake.wait_received(lambda data: data.endswith(b"own words\r"), "the keys have arrived")
        fake.wait(message_id, *DONE)
    assert fake.submitted() == ["a message", "own words"]
    assert keys_of_the_person(fake.received()) == b"own words\r"


def test_a_persons_keys_wait_no_longer_than_two_seconds_and_enter_is_then_theirs(fake: Fake) -> None:
    fake.start(echoes=False)
    with fake.attach() as outer:
        outer.until_shown("? for shortcuts")
        message_id = fake.send("never shown")
        fake.wait_received(lambda data: b"\x1b[201~" in data, "the paste has arrived")
        began = time.monotonic()
        outer.type("xyz")
        fake.wait_received(lambda data: data.endswith(b"xyz"), "the keys have arrived")
        assert time.monotonic() - began < 2.5
        fake.wait(message_id, "unknown")
    assert b"\r" not in fake.received()


def test_ctrl_c_while_a_message_is_typed_goes_through_at_once(fake: Fake) -> None:
    fake.start(echo_ms=1500)
    with fake.attach() as outer:
        outer.until_shown("? for shortcuts")
        message_id = fake.send("unwanted")
        fake.wait_received(lambda data: b"\x1b[201~" in data, "the paste has arrived")
        began = time.monotonic()
        outer.type("\x03")
        fake.wait_received(lambda data: b"\x03" in data, "^C has arrived")
        assert time.monotonic() - began < 1.0
        eventually(lambda: (story := fake.story(message_id)) and story[-1][0] != "typing", "it is no longer typed")
    assert b"\r" not in fake.received().partition(b"\x03")[0]
