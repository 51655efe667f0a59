"""Every byte between attached clients and the program, both ways, counted and summed."""

import base64
import hashlib
import random
import select
import sys

import pytest
from real.attached import RawClient, attach
from real.instance import Instance

from cspd.wire.frames import Kind

pytestmark = pytest.mark.real

RAW_READER = """
import hashlib, os, sys, tty
tty.setraw(0)
os.write(1, b"ready")
want, got, size = int(sys.argv[1]), hashlib.sha256(), 0
while size < want:
    data = os.read(0, min(65536, want - size))
    got.update(data); size += len(data)
os.write(1, b"sum " + got.hexdigest().encode() + b" end")
os.read(0, 1)
"""


@pytest.mark.parametrize("size", [4096, 1 << 20])
def test_every_byte_value_reaches_the_program_untouched(instance: Instance, size: int) -> None:
    data = (bytes(range(256)) * (size // 256))[:size]
    instance.add("raw", sys.executable, "-c", RAW_READER, str(size))
    with attach(instance, "raw") as outer:
        outer.until_shown("ready")
        outer.type(data)
        outer.until_shown(f"sum {hashlib.sha256(data).hexdigest()} end")


WRITER = """
import base64, os, random, sys, tty
tty.setraw(0)
os.write(1, b"ready")
os.read(0, 1)
block = base64.encodebytes(random.Random(7).randbytes(1 << 20))[: 1 << 20]
for _ in range(int(sys.argv[1])):
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(1, rest):]
os.read(0, 1)
"""


def test_64_megabytes_of_output_arrive_byte_exact_at_two_clients(instance: Instance) -> None:
    block = base64.encodebytes(random.Random(7).randbytes(1 << 20))[: 1 << 20]
    expected = hashlib.sha256(b"ready" + block * 64).hexdigest()
    instance.add("w", sys.executable, "-c", WRITER, "64", options=("--restart", "no"))
    instance.wait_screen("w", "ready")
    with RawClient(instance, "w") as a, RawClient(instance, "w", read_only=True) as b:
        for client in (a, b):
            client.until(Kind.REPAINT)
        a.type(b"g")
        sums = {client: (hashlib.sha256(b"ready"), [0]) for client in (a, b)}
        while any(size[0] < 64 << 20 for _, size in sums.values()):
            for client in (a, b):
                if select.select([client.sock], [], [], 0.05)[0]:
                    client.got.clear()
                    assert client.read()
                    sums[client][0].update(client.output())
                    sums[client][1][0] += len(client.output())
                    assert all(kind is Kind.OUTPUT for kind, _ in client.got), "neither client falls behind"
        assert [digest.hexdigest() for digest, _ in sums.values()] == [expected, expected]
