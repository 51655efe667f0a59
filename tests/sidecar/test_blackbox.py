"""The black box on real files: what a sidecar's sudden end leaves, its successor has, and nothing twice."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cspd.sidecar import blackbox
from cspd.sidecar.blackbox import JOURNAL_MAX, LEDGER_KEPT, BlackBox, Remains

pytestmark = pytest.mark.real


def box_in(directory: Path, incarnation: int = 1) -> BlackBox:
    return BlackBox(directory / "bob.screen", directory / "bob.journal", directory / "bob.ledger", incarnation)


class Screen:
    """Stands for the emulator: its snapshot is simply everything that it was ever fed."""

    def __init__(self, directory: Path, incarnation: int = 1) -> None:
        self.box = box_in(directory, incarnation)
        remains = self.box.recover()
        self.fed = b"" if remains is None else remains.snapshot + remains.journal

    def begin(self) -> "Screen":
        self.box.begin(self.fed)
        return self

    def output(self, data: bytes) -> None:
        self.box.append(data)
        self.fed += data

    def save(self) -> None:
        self.box.save(self.fed)


def shown_after_death(directory: Path) -> bytes:
    """What a successor would show, if the sidecar died now."""
    screen = Screen(directory).begin()
    screen.box.close()
    return screen.fed


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """The directory `live` as a death before or after each file operation would leave it."""
    taken: list[Path] = []

    def copy() -> None:
        taken.append(tmp_path / f"copy-{len(taken)}")
        shutil.copytree(tmp_path / "live", taken[-1])

    def copying(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            copy()
            result = operation(*args, **kwargs)
            copy()
            return result

        return wrapped

    (tmp_path / "live").mkdir()
    for owner, name in ((os, "open"), (os, "write"), (os, "close"), (Path, "rename"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, copying(getattr(owner, name)))

    def take() -> list[Path]:
        monkeypatch.undo()
        return taken

    return take


def test_a_first_sidecar_finds_nothing(tmp_path: Path) -> None:
    assert box_in(tmp_path).recover() is None
    assert box_in(tmp_path).recover_ledger() == []


def test_a_successor_finds_the_snapshot_and_the_output_after_it(tmp_path: Path) -> None:
    screen = Screen(tmp_path, incarnation=7).begin()
    screen.output(b"one\n")
    screen.save()
    screen.output(b"two\n")
    screen.output(b"three\n")
    assert box_in(tmp_path, 8).recover() == Remains(7, b"one\n", b"two\nthree\n")


def test_a_snapshot_may_hold_any_byte(tmp_path: Path) -> None:
    snapshot = bytes(range(256)) + b"\n{}\n"
    box_in(tmp_path).begin(snapshot)
    assert box_in(tmp_path).recover() == Remains(1, snapshot, b"")


def test_a_death_in_a_sidecars_life_loses_nothing_and_shows_nothing_twice(
    tmp_path: Path, copies: Callable[[], list[Path]]
) -> None:
    """The files are copied around every operation; from each copy the successor must show what had been written."""
    live = tmp_path / "live"
    screen = Screen(live).begin()
    written = []
    for number in range(3):
        for piece in range(2):
            screen.output(b"<%d.%d>" % (number, piece))
            written.append(screen.fed)
        screen.save()
    deaths = copies()
    shown = [shown_after_death(copy) for copy in deaths]
    assert len(deaths) > 20
    assert set(shown) == {b"", *written}
    assert shown == sorted(shown, key=len)  # never back behind what a death before would have shown


def test_a_death_while_the_successor_takes_over_shows_nothing_twice(
    tmp_path: Path, copies: Callable[[], list[Path]]
) -> None:
    """The output that was being read may be given up then, as it may be what killed the reader; no more than it."""
    live = tmp_path / "live"
    first = Screen(live).begin()
    first.output(b"<old>")
    first.save()
    first.output(b"<new>")
    before = len(list(tmp_path.glob("copy-*")))
    second = Screen(live).begin()
    deaths = copies()[before:]
    assert second.fed == b"<old><new>"
    assert {shown_after_death(copy) for copy in deaths} == {b"<old><new>"}


def test_what_its_readers_die_of_is_given_up_after_three_deaths(tmp_path: Path) -> None:
    first = Screen(tmp_path).begin()
    first.save()
    first.output(b"deadly")
    for _ in range(3):  # one death may be anybody's kill; and each dies of it
        assert box_in(tmp_path).recover() == Remains(1, b"", b"deadly")
    assert box_in(tmp_path).recover() is None
    third = Screen(tmp_path).begin()
    third.output(b"harmless")
    assert shown_after_death(tmp_path) == b"harmless"


def test_successors_of_successors_keep_counting_right(tmp_path: Path) -> None:
    expected = b""
    for number in range(5):
        screen = Screen(tmp_path).begin()
        assert screen.fed == expected
        screen.output(b"<%d>" % number)
        if number % 2:
            screen.save()
        screen.output(b"<%d!>" % number)
        expected = screen.fed
    assert shown_after_death(tmp_path) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["output", "save", "die", "die reading"]), max_size=15))
def test_any_life_keeps_the_end_of_the_output_and_repeats_none(tmp_path: Path, acts: list[str]) -> None:
    for path in tmp_path.iterdir():
        path.unlink()
    screen = Screen(tmp_path).begin()
    for number, act in enumerate(acts):
        match act:
            case "output":
                screen.output(b"<%d>" % number)
            case "save":
                screen.save()
            case "die":
                before = screen.fed
                screen = Screen(tmp_path).begin()
                assert screen.fed == before
            case "die reading":
                Screen(tmp_path)
                screen = Screen(tmp_path).begin()
    assert len(set(screen.fed.split(b">"))) == screen.fed.count(b">") + 1


def test_a_journal_is_full_when_a_new_snapshot_is_worth_it(tmp_path: Path) -> None:
    screen = Screen(tmp_path).begin()
    screen.output(b"x" * JOURNAL_MAX)
    assert not screen.box.full
    screen.output(b"x")
    assert screen.box.full
    screen.save()
    assert not screen.box.full
    assert (tmp_path / "bob.journal").stat().st_size < 100


def test_the_files_are_the_persons_alone(tmp_path: Path) -> None:
    screen = Screen(tmp_path).begin()
    screen.box.recover_ledger()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_screen_file_that_cannot_be_read_costs_the_screen_only(tmp_path: Path) -> None:
    screen = Screen(tmp_path).begin()
    screen.output(b"after it")
    (tmp_path / "bob.screen").write_bytes(b"torn")
    assert Screen(tmp_path).fed == b"after it"


# ---------------------------------------------------------------------- the ledger


def entry(message_id: str, step: str) -> dict[str, Any]:
    return {"message_id": message_id, "step": step, "reason": "", "ts": 1.0}


def test_the_ledger_gives_the_last_step_of_each_message_oldest_first(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    box.recover_ledger()
    for message_id, step in (("a", "typing"), ("b", "typing"), ("a", "submitted")):
        box.record(entry(message_id, step))
    assert box_in(tmp_path).recover_ledger() == [entry("b", "typing"), entry("a", "submitted")]


@pytest.mark.parametrize("torn", [b'{"message_id": "b", "st', b"\xff\xfe", b"[1]\n", b"{}\n", b"\n"])
def test_a_torn_entry_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    box = box_in(tmp_path)
    box.recover_ledger()
    box.record(entry("a", "typing"))
    with (tmp_path / "bob.ledger").open("ab") as f:
        f.write(torn)
    second = box_in(tmp_path)
    assert second.recover_ledger() == [entry("a", "typing")]
    second.record(entry("c", "held"))
    assert box_in(tmp_path).recover_ledger() == [entry("a", "typing"), entry("c", "held")]


def test_a_death_around_any_operation_on_the_ledger_loses_no_step(
    tmp_path: Path, copies: Callable[[], list[Path]]
) -> None:
    live = tmp_path / "live"
    box = box_in(live)
    box.recover_ledger()
    for number in range(3):
        box.record(entry(f"m{number}", "typing"))
    box_in(live).recover_ledger()
    known = [len(box_in(copy).recover_ledger()) for copy in copies()]
    assert known == sorted(known)
    assert known[-1] == 3


def test_the_ledger_is_bounded_and_forgets_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blackbox, "LEDGER_MAX", 20_000)
    monkeypatch.setattr(blackbox, "LEDGER_KEPT", 50)
    box = box_in(tmp_path)
    box.recover_ledger()
    sizes = []
    for number in range(1000):
        box.record(entry(f"m{number}", "submitted"))
        sizes.append((tmp_path / "bob.ledger").stat().st_size)
    assert max(sizes) < 20_100
    kept = [each["message_id"] for each in box_in(tmp_path).recover_ledger()]
    assert kept == [f"m{number}" for number in range(950, 1000)]


def test_the_ledger_keeps_enough_to_recognise_late_duplicates() -> None:
    line = json.dumps({"message_id": "f" * 20, "step": "turn_started", "reason": "", "ts": 1.7e9}).encode()
    assert LEDGER_KEPT * len(line) < blackbox.LEDGER_MAX


def test_output_that_is_not_in_the_snapshot_is_read_from_the_journal(tmp_path: Path) -> None:
    screen = Screen(tmp_path).begin()
    screen.output(b"seen>")
    screen.output(b"not yet>")
    screen.box.save(b"SNAPSHOT of seen>", b"not yet>")
    screen.output(b"later>")
    remains = box_in(tmp_path).recover()
    assert remains is not None
    assert (remains.snapshot, remains.journal) == (b"SNAPSHOT of seen>", b"not yet>later>")


def test_settings_and_how_much_is_recorded_are_known_to_all_who_follow(tmp_path: Path) -> None:
    box = box_in(tmp_path)
    box.recover_ledger()
    assert (box.settings, box.recorded) == (None, None)
    for count in (3, 3, 8):
        box.note_recorded(count)
        box.note_settings({"room": "lobby", "record": {"enabled": True}})
    box.record(entry("a", "typing"))
    for _ in range(2):
        box = box_in(tmp_path)
        assert box.recover_ledger() == [entry("a", "typing")]
        assert (box.settings, box.recorded) == ({"room": "lobby", "record": {"enabled": True}}, 8)
    assert (tmp_path / "bob.ledger").read_bytes().count(b"settings") == 1


@pytest.mark.parametrize(("recorded", "rest"), [(None, b""), (0, b"ello world"), (6, b"world"), (11, b""), (99, b"")])
def test_the_end_of_the_journal_that_is_in_no_recording(tmp_path: Path, recorded: int | None, rest: bytes) -> None:
    """The snapshot already has the first letter."""
    box = box_in(tmp_path)
    box.recover()
    box.begin(b"")
    box.append(b"h")
    box.save(b"screen")
    box.append(b"ello world")
    box.recover_ledger()
    if recorded is not None:
        box.note_recorded(recorded)
    box = box_in(tmp_path)
    remains = box.recover()
    box.recover_ledger()
    assert remains is not None
    assert remains.journal[len(remains.journal) - box.unrecorded(remains.journal) :] == rest
