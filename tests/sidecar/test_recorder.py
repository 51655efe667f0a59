"""Recording onto a real disk: whole files, bounded in size and number, and never at the cost of the agent."""

import errno
import json
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from cspd.sidecar import recorder as module
from cspd.sidecar.emulation import Emulation
from cspd.sidecar.recorder import Files, Recorder
from cspd.sidecar.terminal import Terminal

pytestmark = pytest.mark.real

ON = {"record": {"enabled": True, "max_bytes": 65_536, "keep_files": 3, "input": False}}
OFF = {"record": {"enabled": False}}


@attrs.define
class Journal:
    count: int = 0
    recorded: int | None = None

    def note_recorded(self, count: int) -> None:
        self.recorded = count


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "csp" / "recordings" / "a"


@pytest.fixture
async def recorder(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Recorder]:
    monkeypatch.setattr(module, "FLUSH_SEC", 0.001)
    made = Recorder("a", Emulation(Terminal(80, 24, 100)), Files(directory), Journal())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        with trio.fail_after(60):
            yield made
        nursery.cancel_scope.cancel()


def checked(path: Path) -> list[tuple[float, str, str]]:
    """The events of a file that is asciicast v2 to the letter."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    head, *lines = [json.loads(line) for line in data.decode("ascii").splitlines()]
    assert head["version"] == 2
    for key in ("width", "height", "timestamp"):
        assert type(head[key]) is int
    before = 0.0
    for event in lines:
        at, kind, text = event
        assert type(at) is float
        assert at >= before
        before = at
        assert kind in ("o", "i", "r")
        assert type(text) is str
    return [(at, kind, text) for at, kind, text in lines]


def text_of(path: Path, kind: str = "o") -> str:
    return "".join(text for _, each, text in checked(path) if each == kind)


def casts(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.exists() else []


async def until(condition: Callable[[], object]) -> None:
    """For facts that nothing announces."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.001)


def feed(recorder: Recorder, data: bytes) -> None:
    """As the session does."""
    recorder.output(data)
    recorder.emulation.terminal.feed(data)


async def test_output_and_sizes_are_recorded_input_is_not(recorder: Recorder, directory: Path) -> None:
    recorder.take_settings(ON)
    feed(recorder, b"login: ")
    recorder.input(b"hunter2\r")
    recorder.emulation.terminal.resize(100, 30)
    recorder.resized()
    feed(recorder, b"welcome\r\n")
    await recorder.finish()
    (file,) = casts(directory)
    assert text_of(file).endswith("login: welcome\r\n")
    assert text_of(file, "r") == "100x30"
    assert text_of(file, "i") == ""
    assert "hunter2" not in file.read_text()


async def test_input_is_recorded_where_the_unit_file_asks_for_it(recorder: Recorder, directory: Path) -> None:
    recorder.take_settings({"record": {**ON["record"], "input": True}})
    feed(recorder, b"$ ")
    recorder.input(b"ls\r")
    await recorder.finish()
    assert text_of(directory / "000001.cast", "i") == "ls\r"


async def test_files_are_private(recorder: Recorder, directory: Path) -> None:
    recorder.take_settings(ON)
    feed(recorder, b"x")
    await recorder.finish()
    assert stat.S_IMODE((directory / "000001.cast").stat().st_mode) == 0o600
    for each in (directory, directory.parent, directory.parent.parent):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700


async def test_nothing_is_written_unless_the_unit_file_asks_and_a_reload_counts_at_once(
    recorder: Recorder, directory: Path
) -> None:
    recorder.take_settings({})
    feed(recorder, b"one")
    recorder.take_settings(ON)
    feed(recorder, b"two")
    recorder.take_settings(OFF)
    feed(recorder, b"three")
    recorder.take_settings({})  # of a cspd that knows nothing of recordings: as it was
    feed(recorder, b"four")
    recorder.take_settings(ON)
    feed(recorder, b"five")
    await recorder.finish()
    first, second = (text_of(path) for path in casts(directory))
    assert first.endswith("two")
    assert "one" in first  # it begins with what the screen showed
    assert "three" not in first
    assert second.endswith("five")
    assert "onetwothreefour" in second


async def test_a_full_file_is_followed_by_one_that_stands_alone_and_the_oldest_go(
    recorder: Recorder, directory: Path
) -> None:
    recorder.take_settings(ON)
    for number in range(400):
        feed(recorder, b"line %d " % number + b"x" * 900 + b"\r\n")
        await trio.lowlevel.checkpoint()
    await recorder.finish()
    files = casts(directory)
    assert len(files) == 3
    assert int(files[-1].stem) > 3
    assert all(path.stat().st_size < 65_536 + 20_000 for path in files)
    for path in files:
        replayed = Terminal(80, 24, 100)
        replayed.feed(text_of(path).encode())
        assert "line" in "\n".join(replayed.screen_lines())
        replayed.close()
    assert "line 399" in text_of(files[-1])


async def test_each_file_begins_with_the_screen_as_it_was(recorder: Recorder, directory: Path) -> None:
    feed(recorder, b"\x1b[2;5Hhere\x1b[?1049h\x1b[Hmenu")
    recorder.take_settings(ON)
    feed(recorder, b"\x1b[5;5Hmore")
    await recorder.finish()
    replayed = Terminal(80, 24, 100)
    replayed.feed(text_of(directory / "000001.cast").encode())
    assert replayed.screen_lines() == recorder.emulation.terminal.screen_lines()
    assert replayed.alternate
    replayed.close()


async def test_a_line_that_death_cut_off_is_taken_away_by_the_next_sidecar(recorder: Recorder, directory: Path) -> None:
    recorder.take_settings(ON)
    feed(recorder, b"before")
    await recorder.finish()
    with (directory / "000001.cast").open("a") as file:
        file.write('[3.0, "o", "tor')
    files = Files(directory)
    files.begin(3)
    files.close()
    assert text_of(directory / "000001.cast").endswith("before")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
async def test_a_full_disk_ends_the_recording_with_one_line_and_leaves_a_whole_file(
    recorder: Recorder,
    directory: Path,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder.take_settings(ON)
    feed(recorder, b"kept")
    await until(lambda: any("kept" in path.read_text() for path in casts(directory)))
    write, halves = os.write, [True]

    def full(fd: int, data: Any) -> int:
        if halves.pop() if halves else False:
            return write(fd, bytes(data)[: len(data) // 2])  # a disk takes what it can
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("cspd.sidecar.recorder.os.write", full)
    feed(recorder, b"lost")
    await until(lambda: caplog.records)
    for _ in range(10):
        feed(recorder, b"more")
    await recorder.finish()
    monkeypatch.undo()
    assert [record.message for record in caplog.records] == [
        f"a: recording has stopped: {directory}: {os.strerror(number)}"
    ]
    assert text_of(directory / "000001.cast").endswith("kept")


async def test_a_disk_that_is_behind_costs_a_gap_and_no_memory(
    recorder: Recorder, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_MAX", 20_000)
    go_on = trio.Event()
    flush = Recorder._flush

    async def slow(self: Recorder) -> None:
        await go_on.wait()
        await flush(self)

    monkeypatch.setattr(Recorder, "_flush", slow)
    recorder.take_settings({"record": {**ON["record"], "max_bytes": 1 << 20}})
    for number in range(1000):
        feed(recorder, b"line %d\r\n" % number)
    assert recorder._queued < 25_000
    go_on.set()
    await until(lambda: not recorder._queued and not recorder._writing)
    feed(recorder, b"after")
    await recorder.finish()
    first, second = casts(directory)
    assert "line 0\r\n" in text_of(first)
    assert "line 999" not in text_of(first)
    assert "line 999" in text_of(second)  # on its first screen
    assert text_of(second).endswith("after")


async def test_what_is_on_disk_is_noted_and_nothing_else(
    recorder: Recorder, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = recorder.journal
    assert isinstance(journal, Journal)
    journal.count = 100  # before anybody wanted a recording
    recorder.take_settings(ON)
    assert journal.recorded == 100
    journal.count = 105
    feed(recorder, b"hello")
    assert journal.recorded == 100
    await until(lambda: journal.recorded == 105)
    assert text_of(casts(directory)[0]).endswith("hello")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    journal.count = 110
    feed(recorder, b"world")
    await recorder.finish()
    assert journal.recorded == 105
