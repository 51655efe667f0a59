"""A terminal program with an input box like an agent CLI's, which misbehaves as it is told. Standard library only.

    fake_tui.py FOLDER [MANNERS as JSON]

It writes all that it receives and what it takes as submitted to FOLDER/log, one JSON object a line. FOLDER/control is
a named pipe: each line changes manners. Whoever presses Enter in its dialog has FOLDER/ran written: nobody may.
"""

import codecs
import dataclasses
import json
import os
import re
import select
import signal
import sys
import termios
import textwrap
import time
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

PASTE, PASTE_END = b"\x1b[200~", b"\x1b[201~"
TOKEN = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b(?!\[)|[^\x1b]")
SPINNER_MS = 100


@dataclasses.dataclass
class Manners:
    """How it behaves; all off is a well-behaved program."""

    alternate: bool = True  # at start only
    echo_ms: int = 0  # text shows so much later
    echoes: bool = True
    placeholder_over: int = 0  # a longer paste shows as a placeholder; 0 = never
    deaf_ms: int = 0  # Enter is lost for so long after a paste
    newline_ms: int = 0  # the same, but such an Enter becomes a newline in the box
    popup: bool = False  # a paste opens a menu, and its first Enter only closes the menu
    frozen_ms: int = 0  # reads nothing for so long after a paste
    redraw_ms: int = 0  # clears and draws everything again all the time
    busy_ms: int = 0  # works so long after each submit
    dialog: str = ""  # opens one: "now", "paste" begins, "cover" the pasted text, "echo" is seen, "submit"; or "close"


class Fake:
    """State and screen; `run` reads until it is killed."""

    def __init__(self, folder: Path, manners: Manners) -> None:
        self.folder, self.manners = folder, manners
        self.log = open(folder / "log", "a", buffering=1)  # noqa: SIM115
        self.box = self.shown = ""
        self.transcript = ["FAKE 1.0"]
        self.pasting: bytearray | None = None
        self.pasted_at = float("-inf")
        self.rest = b""
        self.decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.dialog = self.popup = self.busy = self.frozen = False
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def note(self, event: str, **fields: Any) -> None:
        self.log.write(json.dumps({"event": event, "ts": time.time(), **fields}) + "\n")

    # --- time and input --------------------------------------------------------------------------

    def after(self, ms: float, action: Callable[[], None]) -> None:
        if ms <= 0:
            action()
        else:
            self.timers.append((time.monotonic() + ms / 1000, action))

    def run(self, control: int, resized: int) -> None:
        self.apply({})
        self.draw()
        self.redraw()
        while True:
            due = min((at for at, _ in self.timers), default=float("inf"))
            wait = None if due == float("inf") else max(0.0, due - time.monotonic())
            readable, _, _ = select.select([control, resized] + [0] * (not self.frozen), [], [], wait)
            if 0 in readable:
                self.read(os.read(0, 65536))
            if resized in readable:
                os.read(resized, 64)
                self.draw()
            if control in readable:
                for line in os.read(control, 65536).splitlines():
                    self.apply(json.loads(line))
            self.fire()

    def fire(self) -> None:
        now = time.monotonic()
        due = [timer for timer in self.timers if timer[0] <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for _, action in due:
            action()

    def apply(self, changes: dict[str, Any]) -> None:
        self.manners = dataclasses.replace(self.manners, **changes)
        if self.manners.dialog in ("now", "close"):
            self.dialog, self.manners.dialog = self.manners.dialog == "now", ""
        self.draw()
        self.note("manners", **dataclasses.asdict(self.manners))

    def read(self, data: bytes) -> None:
        self.note("bytes", data=data.decode("latin-1"))
        data = self.rest + data
        self.rest = b""
        while data:
            if self.pasting is not None:
                data = self.paste_more(data)
                continue
            found = TOKEN.match(data)
            if found is None:  # the rest of a sequence is still to come
                self.rest = data
                break
            data = data[found.end() :]
            self.key(found[0])
        self.draw()

    def key(self, key: bytes) -> None:
        if key == PASTE:
            self.pasting = bytearray()
            self.dialog = self.dialog or self.manners.dialog == "paste"
        elif self.dialog:
            self.answer(key)
        elif key == b"\r":
            self.enter()
        elif key in (b"\x15", b"\x03"):
            self.box = self.shown = ""
        elif key == b"\x7f":
            self.change(self.box[:-1])
        elif key == b"\n" or (key >= b" " and not key.startswith(b"\x1b")):
            self.change(self.box + self.decode(key))

    def paste_more(self, data: bytes) -> bytes:
        assert self.pasting is not None
        self.pasting += data
        inside, end, rest = bytes(self.pasting).partition(PASTE_END)
        if not end:
            return b""
        self.pasting = None
        if not self.dialog:  # as in the real programs, a dialog throws a paste away
            self.pasted(inside.decode("utf-8", "replace").replace("\r", "\n"))
        return rest

    def pasted(self, text: str) -> None:
        over = 0 < self.manners.placeholder_over < len(text)
        self.change(self.box + text, f"[Pasted text #1 +{text.count(chr(10))} lines]" if over else None)
        self.pasted_at = time.monotonic()
        self.popup = self.manners.popup
        if self.manners.frozen_ms:
            self.frozen = True
            self.after(self.manners.frozen_ms, self.thaw)

    def thaw(self) -> None:
        self.frozen = False

    def change(self, text: str, shown: str | None = None) -> None:
        """The box holds `text` now; it is shown when its time has come."""
        self.box = text
        if self.manners.echoes:
            self.after(self.manners.echo_ms, lambda: self.show(text if shown is None else shown))

    def show(self, text: str) -> None:
        self.shown = text
        self.draw()
        if self.manners.dialog in ("echo", "cover"):
            self.after(60 * (self.manners.dialog == "echo"), lambda: self.apply({"dialog": "now"}))

    # --- Enter -----------------------------------------------------------------------------------

    def enter(self) -> None:
        since_ms = (time.monotonic() - self.pasted_at) * 1000
        if self.popup:
            self.popup = False
        elif since_ms < self.manners.newline_ms:
            self.change(self.box + "\n")
        elif since_ms >= self.manners.deaf_ms:
            self.submit()

    def submit(self) -> None:
        if not self.box.strip():
            self.note("empty-enter")
            return
        self.note("submitted", text=self.box)
        self.transcript += ["❯ " + self.box.split("\n")[0], f"● ACK {len(self.box)}"]
        self.box = self.shown = ""
        self.dialog = self.manners.dialog == "submit"
        if self.manners.busy_ms:
            self.busy = True
            self.after(self.manners.busy_ms, self.finish)
            self.spin()

    def finish(self) -> None:
        self.busy = False
        self.draw()

    def spin(self) -> None:
        if self.busy:
            self.draw()
            self.after(SPINNER_MS, self.spin)

    def answer(self, key: bytes) -> None:
        """A key while the dialog is open; Enter takes the choice that is marked, as everywhere."""
        self.note("answer", key=key.decode("latin-1"))
        if key in (b"\r", b"1", b"y"):
            (self.folder / "ran").touch()
        if key in (b"\r", b"1", b"y", b"2", b"n", b"\x1b"):
            self.dialog = False

    # --- the screen ------------------------------------------------------------------------------

    def redraw(self) -> None:
        if self.manners.redraw_ms:
            self.put("\x1b[2J")
            self.after(5, self.draw)  # between the two an empty screen may be seen
        self.after(self.manners.redraw_ms or 50, self.redraw)

    def draw(self) -> None:
        size = os.get_terminal_size()
        below = self.dialog_rows(size.columns) if self.dialog else self.box_rows(size)
        above = self.transcript[-(size.lines - len(below)) :]
        title = "⠋ working" if self.busy else "✳ fake"  # a dialog has the title of a ready program, as in claude
        rows = [row[: size.columns - 1] for row in above + below]
        self.put(f"\x1b]0;{title}\x07\x1b[H" + "\x1b[K\r\n".join(rows) + "\x1b[K\x1b[J")

    def box_rows(self, size: os.terminal_size) -> list[str]:
        wrapped: list[str] = []
        for line in self.shown.split("\n"):
            wrapped += textwrap.wrap(line, size.columns - 6, drop_whitespace=False) or [""]
        wrapped = wrapped[-(size.lines - 8) :]
        frame = "─" * (size.columns - 1)
        work = [f"✶ Working… {time.monotonic() % 100:.1f} (esc to interrupt)"] if self.busy else []
        menu = ["  /one   first entry", "  /two   second entry"] if self.popup else ["  ? for shortcuts"]
        return ["", *work, frame, "❯ " + wrapped[0], *("  " + row for row in wrapped[1:]), frame, *menu]

    def dialog_rows(self, columns: int) -> list[str]:
        return ["─" * (columns - 1), " Do you want to proceed?", " ❯ 1. Yes", "   2. No", "", " Esc to cancel"]

    def put(self, text: str) -> None:
        data = text.encode()
        while data:
            data = data[os.write(1, data) :]


def main() -> None:
    folder = Path(sys.argv[1])
    manners = Manners(**json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))
    if not (folder / "control").exists():
        os.mkfifo(folder / "control")
    control = os.open(folder / "control", os.O_RDWR | os.O_NONBLOCK)  # for writing too: never at its end
    resized, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGWINCH, lambda *_: None)
    saved = termios.tcgetattr(0)
    tty.setraw(0)
    fake = Fake(folder, manners)
    fake.put("\x1b[?1049h" * manners.alternate + "\x1b[?2004h\x1b[>1u\x1b[?25l")
    try:
        fake.run(control, resized)
    finally:
        fake.put("\x1b[?25h\x1b[<u\x1b[?2004l" + "\x1b[?1049l" * manners.alternate)
        termios.tcsetattr(0, termios.TCSADRAIN, saved)


if __name__ == "__main__":
    main()
