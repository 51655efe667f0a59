"""The spool on real files: order, what survives a death at any byte, and its bounds."""

from pathlib import Path

import pytest

from cspd.sidecar import spool as spool_module
from cspd.sidecar.spool import Spool

pytestmark = pytest.mark.real


def numbers(spool: Spool) -> list[int]:
    return [entry.params["i"] for entry in spool]


def filled(path: Path | None, *params: int) -> Spool:
    spool = Spool(path)
    for i in params:
        spool.add("sidecar.said", {"i": i})
    return spool


def take(spool: Spool, count: int) -> None:
    for _ in range(count):
        spool.done(spool.first())


def test_what_was_not_acknowledged_is_there_again_in_order(tmp_path: Path) -> None:
    spool = filled(tmp_path / "spool", *range(10))
    take(spool, 4)
    spool.close()
    again = Spool(tmp_path / "spool")
    assert numbers(again) == [4, 5, 6, 7, 8, 9]
    again.add("sidecar.said", {"i": 10})
    take(again, 6)
    again.close()
    assert numbers(Spool(tmp_path / "spool")) == [10]


def test_a_death_at_any_byte_loses_at_most_what_was_just_being_written(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = filled(path, *range(5))
    take(spool, 2)
    spool.close()
    raw = path.read_bytes()
    for cut in range(len(raw)):
        path.write_bytes(raw[:cut])
        got = Spool(path)
        left = numbers(got)
        got.close()
        assert left == sorted(left)
        whole = raw[:cut].count(b'{"n"')
        assert set(range(2, max(whole - 1, 2))) <= set(left)


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    spool = filled(None, 1, 2)
    take(spool, 1)
    assert numbers(spool) == [2]
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_for_nobody_else_and_shrinks_when_all_is_said(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = filled(path)
    for i in range(3000):
        spool.add("sidecar.line", {"i": i})
        take(spool, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size < 2 * spool_module.FILE_IDLE
    spool.close()


def test_the_oldest_goes_when_there_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool_module, "COUNT_MAX", 3)
    spool = filled(tmp_path / "spool", *range(5))
    assert numbers(spool) == [2, 3, 4]
    assert "lost" in caplog.text
    monkeypatch.setattr(spool_module, "BYTES_MAX", 200)
    spool.add("sidecar.said", {"i": 5, "text": "x" * 100})
    assert numbers(spool) == [5]
    spool.close()
    assert numbers(Spool(tmp_path / "spool")) == [5]


def test_what_was_dropped_while_it_was_being_said_is_not_taken_for_its_successor() -> None:
    spool = filled(None, 1, 2)
    entry = spool.first()
    spool.done(entry)
    spool.done(entry)
    assert numbers(spool) == [2]


def test_a_full_disk_keeps_everything_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(Path("/dev/full/spool"))
    spool.add("sidecar.said", {"i": 1})
    assert numbers(spool) == [1]
    assert "would not outlive us" in caplog.text
