"""Attached clients that stop reading or talk nonsense: they cost little, and nobody else waits for them."""

import json
import re
import socket

import pytest
from real.attached import RawClient, attach
from real.instance import PATIENCE_SEC, Instance

from cspd.wire.frames import FrameSplitter, Kind, frame

pytestmark = pytest.mark.real


def memory_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def test_a_client_that_stops_reading_blocks_nobody_costs_little_and_is_painted_anew(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with RawClient(instance, "sh") as stuck, RawClient(instance, "sh") as reader:
        for client in (stuck, reader):
            client.until(Kind.REPAINT)
        before = memory_kb(instance.agent("sh")["sidecar"]["pid"])
        reader.type(b"head -c 30000000 /dev/zero | tr '\\0' x; echo; echo all-$((1+1))-done\r")
        size = 0
        tail = b""
        while b"all-2-done" not in tail:
            reader.got.clear()
            assert reader.read()
            size += len(reader.output())
            tail = (tail + reader.output())[-200:]
        assert size >= 30_000_000, "the one that reads gets every byte"
        assert memory_kb(instance.agent("sh")["sidecar"]["pid"]) - before < 40_000
        stuck.got.clear()
        stuck.until(Kind.REPAINT)
        assert b"all-2-done" in stuck.until(Kind.REPAINT)
        assert sum(len(data) for _, data in stuck.got) < 4_000_000, "what it missed was not kept for it"
        stuck.type(b"echo back-$((2+2))\r")
        while b"back-4" not in stuck.output():
            stuck.read()


def test_of_two_terminals_the_one_that_is_not_read_is_painted_anew_and_the_other_misses_nothing(
    instance: Instance,
) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh") as stuck, attach(instance, "sh") as reader:
        stuck.until_shown("$")
        reader.until_shown("$")
        reader.output.clear()
        reader.type("seq -f 'line-%.0f' 400000; echo all-$((1+1))-done\r")
        reader.until_shown("all-2-done")
        assert re.findall(rb"line-(\d+)\r\n", reader.output) == [b"%d" % n for n in range(1, 400001)]
        stuck.output.clear()
        stuck.until_shown("all-2-done")
        assert len(stuck.output) < 3_000_000, "what it missed was not kept for it"
        stuck.type("echo back-$((2+2))\r")
        stuck.until_shown("back-4")


ASK = r"printf '\e[6n'; IFS='[;' read -rs -d R _ row column; echo answer-$row-$column-"


def test_a_program_that_asks_gets_its_answer_also_while_the_leading_terminal_is_not_read(instance: Instance) -> None:
    asks = f"read -rsn1; clear; {ASK}; read -rsn1; seq 400000; {ASK}; read -rsn1; clear; {ASK}; read"
    instance.add("asks", "bash", "--norc", "-c", f"echo ready; {asks}")
    instance.wait_screen("asks", "ready")
    with attach(instance, "asks") as leader:
        leader.until_shown("ready")
        leader.type("g")
        leader.until_shown("answer-1-1-")
        leader.output.clear()
        leader.type("g")  # and is not read any more
        instance.wait_screen("asks", "answer-24-1-")
        leader.until_shown("answer-24-1-")
        assert b"\x1b[6n" not in leader.output, "a picture does not ask"
        leader.type("g")
        leader.until_shown("answer-1-1-")
        assert b"\x1b[6n" in leader.output


def test_nonsense_on_the_attach_socket_costs_only_its_own_connection(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    path = str(instance.runtime / "agents" / "sh.sock")
    sidecar = instance.agent("sh")["sidecar"]["pid"]
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\xff\xff\xff\xff",
        frame(Kind.HELLO, b"not json"),
        frame(Kind.HELLO, b"[" * 100_000),
        b"\x0b\0\0\0\0",
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(nonsense)
            sock.settimeout(PATIENCE_SEC)
            while sock.recv(65536):
                pass
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(frame(Kind.HELLO, json.dumps({"protocol": 99999999, "rows": 0, "columns": 5}).encode()))
        sock.settimeout(PATIENCE_SEC)
        (kind, payload), *_ = FrameSplitter().feed(sock.recv(65536))
        assert kind is Kind.REFUSED
        assert "window size" in json.loads(payload)["message"]
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        assert instance.agent("sh")["sidecar"]["pid"] == sidecar, "it is still the same one"
