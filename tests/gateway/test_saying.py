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
    return made


def test_ids_of_the_same_moment_begin_alike_and_differ(clock: Clock) -> None:
    clock.now = 1_795_453_571.5
    ids = {saying.new_message_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(id) for id in ids} == {20}
    assert len({id[:6] for id in ids}) == 1


def test_later_ids_sort_behind_earlier_ones_until_the_digits_begin_anew(clock: Clock) -> None:
    begins = []
    for clock.now in (0.0, 0.001, 1.0, 100.0, (0xFFFFFF + 0.5) / 10_000, (0x1000000 + 0.5) / 10_000):
        begins.append(saying.new_message_id()[:6])
    assert begins == ["000000", "00000a", "002710", "0f4240", "ffffff", "000000"]
