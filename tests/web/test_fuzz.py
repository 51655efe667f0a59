"""A short run of the fuzzer with fixed seeds; `bench/fuzz_gateway.py` is the long one."""

from pathlib import Path

import pytest
from web import fuzz

pytestmark = pytest.mark.real


@pytest.mark.parametrize("seed", [1, 2])
async def test_nonsense_is_answered_by_a_status_or_by_nothing_and_the_gateway_goes_on(
    tmp_path: Path, seed: int
) -> None:
    seen = await fuzz.rounds(tmp_path, seed, 60)
    assert seen[400] > 5  # it was not all refused for one and the same reason
    assert len(seen) > 3
