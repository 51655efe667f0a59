"""Message ids: nobody's twice, and together in the index when they were made together."""

import pytest

from cspd.gateway import saying

pytestmark = pytest.mark.pure


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(saying, "time", made)
    monkeypatch.setattr(saying, "_tick", 0)
    return made


def test_ids_of_the_same_moment_stand_together_and_differ_in_the_digits_that_are_typed(clock: Clock) -> None:
    clock.now = 1_000_000.0
    ids = [saying.new_message_id() for _ in range(1000)]
    assert {len(id) for id in ids} == {20}
    assert [int(id[:6], 16) for id in ids] == [(10_000_000_000 + n) % (1 << 24) for n in range(1000)]
    clock.now -= 3600.0  # the clock was set: no digits come again so soon
    assert saying.new_message_id()[:6] not in {id[:6] for id in ids}


def test_later_ids_sort_behind_earlier_ones_until_the_digits_begin_anew(clock: Clock) -> None:
    begins = []
    for clock.now in (0.0001, 0.001, 1.0, 100.0, (0xFFFFFF + 0.5) / 10_000, (0x1000000 + 0.5) / 10_000):
        begins.append(saying.new_message_id()[:6])
    assert begins == ["000001", "00000a", "002710", "0f4240", "ffffff", "000000"]
