"""Programs that run inside the terminals: python programs.py NAME [ARGUMENT...]. Standard library only."""

import hashlib
import os
import random
import sys
import time
import tty

END = b"<<the end>>"
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "daemon",
    "error",
    "warning",
    "test",
    "passed",
    "src/main.py",
    "0x7f3a",
    "naïve",
    "→ ✓",
]
MB = 1 << 20


def echo() -> None:
    """Gives back what arrives, and nothing else."""
    tty.setraw(0)
    os.write(1, b"READY\r\n")
    while data := os.read(0, 4096):
        os.write(1, data)


def block(kind: str, size: int = 256 << 10) -> bytes:
    """About so many bytes as programs print them: plain lines, coloured ones, or a part of the screen drawn anew."""
    rng = random.Random(1)
    out: list[str] = []
    length = 0
    while length < size:
        words = rng.choices(WORDS, k=rng.randint(3, 11))
        match kind:
            case "plain":
                piece = " ".join(words)[:76] + "\n"
            case "colour":
                pens = ("1;31", "32", "38;5;208", "38;2;90;120;200", "2")
                piece = " ".join(f"\x1b[{rng.choice(pens)}m{word}\x1b[0m" for word in words) + "\n"
            case _:
                text = " ".join(words)[:70]
                rows = (f"\x1b[2K\x1b[38;5;{rng.randint(17, 230)}m{text[n * 7 :]}\x1b[0m" for n in range(8))
                piece = "\x1b[?25l\r\x1b[8A" + "\r\n".join(rows) + "\r\n\x1b[?25h"
        out.append(piece)
        length += len(piece.encode())
    return "".join(out).encode()


def flood(kind: str, megabytes: str) -> None:
    """After a key: so many megabytes, and the end mark. Again after the next key."""
    tty.setcbreak(0)
    data, total = block(kind), int(float(megabytes) * MB)
    os.write(1, b"\n" * 10 + b"READY\n")
    while os.read(0, 1):
        sent = 0
        while sent < total:
            sent += os.write(1, data)
        os.write(1, b"\r\n" * 9 + END + b"\r\n")


def sink(size: str) -> None:
    """Reads so many bytes and says what they were."""
    tty.setraw(0)
    os.write(1, b"READY\r\n")
    while True:
        digest, left = hashlib.sha256(), int(size)
        while left:
            data = os.read(0, min(left, 65536))
            digest.update(data)
            left -= len(data)
        os.write(1, b"\r\nSHA " + digest.hexdigest().encode() + b"\r\n")


PAINTING = (
    b"".join(b"\x1b[3%dmrow %d of the history\x1b[0m\r\n" % (n % 8, n) for n in range(200))
    + b"\r\n" * 100  # all of them have left the screen, however high it is
    + b"\x1b]2;a title\x07\x1b[5 q\x1b[?2004h\x1b[?1004h\x1b[?1002h\x1b[?1006h\x1b[?1h\x1b[?25l\x1b[?7l"
    + b"\x1b[2J\x1b[H\x1b[1;4;38;2;200;100;50mheader\x1b[0m \x1b[7minverse\x1b[0m \xe6\x97\xa5\xe6\x9c\xac\r\n"
    + b"\x1b[3;20r\x1b[7;10H\x1b[31mred here"
)
ALTERNATE = b"\x1b[?1049h\x1b[2J\x1b[H\x1b[44mfull screen\x1b[0m\x1b[12;30Hin the middle"


def painted(alternate: str = "") -> None:
    """A screen with everything that has to come back, on the primary or the alternate screen."""
    tty.setraw(0)
    os.write(1, b"READY\r\n" + PAINTING + (ALTERNATE if alternate else b""))
    while os.read(0, 1):
        os.write(1, b" and on")


def pump(path: str) -> None:
    """Prints for ever after a key; `path` says how many bytes by its size."""
    tty.setcbreak(0)
    data = block("plain", 32 << 10)
    os.write(1, b"READY\n")
    os.read(0, 1)
    with open(path, "ab", buffering=0) as count:
        while True:
            os.write(1, data)
            count.write(b".")


def prompter(fifo: str) -> None:
    """A prompt that takes pastes, and says when the first byte of each line came."""
    tty.setraw(0)
    out = os.open(fifo, os.O_WRONLY)
    os.write(1, b"\x1b[?2004h> ")
    begun = False
    while data := os.read(0, 65536):
        if not begun:
            os.write(out, b"%f\n" % time.clock_gettime(time.CLOCK_MONOTONIC))
            begun = True
        text = data.replace(b"\x1b[200~", b"").replace(b"\x1b[201~", b"").replace(b"\n", b"\r\n  ")
        if text.endswith(b"\r"):
            text, begun = text[:-1] + b"\r\nthank you\r\n> ", False
        os.write(1, text)


PROGRAMS = {"echo": echo, "flood": flood, "sink": sink, "painted": painted, "pump": pump, "prompter": prompter}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    PROGRAMS[name](*arguments)
