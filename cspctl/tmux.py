"""`cspctl tmux`: a tmux session with a pane for each agent and one for `watch`; run again it adds what is missing.

Sets options of that session and its windows only, never the person's. What is wanted is decided in `panes`; the panes
run `cspctl attach` and `cspctl watch`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

from cspctl import panes
from cspctl.client import Client
from cspctl.output import print_json, say
from cspctl.panes import LAYOUTS, WATCH, Pane
from cspd.errors import CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cspctl.main import Call

OLDEST = (3, 2)  # the first that can show a title as mere text
WITHOUT_TERMINAL = (200, 50)  # columns and rows when nobody looks yet; tmux fits it to who attaches
# tmux overlooks a new line in the second in which it drew the status line itself, and changes come in twos and threes.
SETTLE_SEC = 1.0
STATUS_LINES_MAX = 5  # tmux's own limit
# A pane that closed at once would hide why. Not tmux's own `remain-on-exit failed`: 3.3 sometimes loses the status and
# keeps the pane of an attach that was left in good order.
# The pane's title is set from inside: set from outside it could come after the agent's own and hide that.
HOLD = """printf '\\033]2;%s\\033\\\\' "$0"
"$@" && exit
tmux set-option -p -t "$TMUX_PANE" @csp_ended 1
printf '\\n[Enter closes this pane, cspctl tmux shows it again]'
read -r _"""
WINDOW_OPTIONS = {
    "pane-border-status": "top",
    "pane-border-format": panes.BORDER,
    "automatic-rename": "off",
}


def tmux(call: Call) -> int:
    """A pane for each NAME, by default for each agent that is not stopped, and one for `watch`.

    Run it again to add what is missing: new agents, closed panes. LAYOUT is `tiled` (the default) or `main`,
    which shows the first agent large on the left. What does not fit goes into further windows.
    ^] closes one pane; tmux's own keys (Ctrl-B d) leave them all. The agents go on.
    --status shows no pane but prints what every agent does, and again after each change. For a status line of
    your own: set -g status-right '#(cspctl tmux --status)'
    """
    if call.flag("status"):
        if call.words or call.flag("layout"):
            raise CspError("usage", "tmux: --status: stands alone: it shows no pane", "cspctl help tmux")
        return _follow_states(call)
    layout = call.value("layout")
    if layout is not None and layout not in LAYOUTS:
        raise CspError("usage", f"tmux: --layout {layout}: not known", nearest(layout, LAYOUTS) or "tiled or main")
    _refuse_inside()
    shown, left_out = panes.choose(call.words, call.ask("agent.list", {}))
    session = _Session(call.socket, layout)
    added = session.extend([*shown, WATCH])
    if left_out:
        say(f"without {', '.join(left_out)}")
    if call.json:
        print_json({"session": session.name, "shown": shown, "added": added})
        return 0
    return session.show()


def _refuse_inside() -> None:
    """An agent's terminal that shows itself would paint for ever, and panes would be the agent to cspd."""
    if agent := os.environ.get("CSP_AGENT"):
        sentence = f"tmux: this is the terminal of agent {agent}: its panes would show themselves"
        raise CspError("inside", sentence, "run it in a terminal of your own")


def _follow_states(call: Call) -> int:
    """Ends with cspd; tmux starts it again with the next look at the status line."""
    try:
        with Client(call.socket) as cspd:
            cspd.call("events.subscribe", {})
            last = ""
            while True:
                time.sleep(SETTLE_SEC)  # what changes together is shown together
                line = panes.states_line(cspd.call("agent.list", {}))
                if line != last:
                    print(line, flush=True)
                last = line
                next(event for event in cspd.events() if event["type"] in ("agent", "delivery"))
    except CspError as problem:
        if problem.code != "unreachable":
            raise
        print("cspd is not running", flush=True)
        return problem.exit_status


class _Session:
    """Our session on the tmux server that is meant here: that of $TMUX, or the person's default one."""

    def __init__(self, socket: str, layout: str | None) -> None:
        _check_version()
        self._socket = os.path.abspath(socket)
        self._instance = hashlib.blake2b(self._socket.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        agent = _try("show-environment", "-g", "CSP_AGENT").partition("=")[2].strip()
        if agent:
            sentence = f"tmux: its server was started inside agent {agent}: the panes would be that agent's"
            raise CspError("inside", sentence, "end that server, or use another: tmux -L other new cspctl tmux")
        self.id = self.name = ""
        self._layout = layout or "tiled"
        self._layout_given = layout is not None

    def _find(self) -> None:
        listed = _try("list-sessions", "-F", "#{session_id} #{@csp_instance} #{@csp_layout} #{session_name}")
        for line in listed.splitlines():
            session, instance, layout, name = line.split(" ", 3)
            if instance == self._instance:
                self.id, self.name = session, name
                if self._layout_given:
                    _tmux("set-option", "-t", self.id, "@csp_layout", self._layout)
                elif layout in LAYOUTS:
                    self._layout = layout

    def extend(self, wanted: list[str]) -> list[str]:
        """Open what is missing, and show again what has ended; -> what was opened."""
        with _one_at_a_time(self._socket):
            self._find()
            return self._extend(wanted)

    def _extend(self, wanted: list[str]) -> list[str]:
        there = self._panes()
        ended = [pane for pane in there if pane.ended and pane.shows in wanted]
        for pane in ended:
            _tmux("set-option", "-p", "-u", "-t", pane.id, "@csp_ended")
            _tmux("respawn-pane", "-k", "-t", pane.id, *self._command(pane.shows))
        new = panes.missing(wanted, there)
        rest = new
        if new and not self.id:
            size = _size_here()
            first, *rest = panes.with_watch_in_sight(new, panes.fits(*size, self._layout))
            self._create(first, size)
            there = self._panes()
        left = panes.room_left(there, self.id, self._layout)
        last = {pane.window: pane for pane in there if pane.session == self.id}
        for name in rest:
            self._open(name, left, last)
        return [*(pane.shows for pane in ended), *new]

    def _panes(self) -> list[Pane]:
        return panes.read_panes(_try("list-panes", "-a", "-F", panes.FORMAT), self._instance)

    def _command(self, name: str) -> list[str]:
        words = ["watch"] if name == WATCH else ["attach", name]
        return ["sh", "-c", HOLD, name, *self._cspctl(), *words]

    def _cspctl(self) -> list[str]:
        """By its interpreter: the server's PATH and XDG variables may be those of another day."""
        return [sys.executable, "-P", "-m", "cspctl", "--socket", self._socket]

    def _create(self, first: str, size: tuple[int, int]) -> None:
        taken = set(_try("list-sessions", "-F", "#{session_name}").splitlines())
        names = ["csp", *(f"csp-{number}" for number in range(2, len(taken) + 3))]
        self.name = next(name for name in names if name not in taken)
        columns, rows = size
        new = ["new-session", "-d", "-s", self.name, "-x", str(columns), "-y", str(rows), "-n", "agents", "-P", "-F"]
        made = _tmux(*new, "#{session_id} #{window_id} #{pane_id}", *self._command(first))
        self.id, window, pane = made.split()
        _tmux("set-option", "-t", self.id, "@csp_instance", self._instance)
        _tmux("set-option", "-t", self.id, "@csp_layout", self._layout)
        self._add_status_line()
        self._dress_window(window)
        self._dress_pane(pane, first)

    def _add_status_line(self) -> None:
        """One more line below the person's own ones, which stay as they are."""
        word = _tmux("show-options", "-gv", "status").strip()
        count = {"off": 0, "on": 1}.get(word) if not word.isdigit() else int(word)
        own = min(count or 0, STATUS_LINES_MAX - 1)
        for number in range(own):  # a session's list of formats replaces the person's whole list
            theirs = _tmux("show-options", "-gv", f"status-format[{number}]").rstrip("\n")
            _tmux("set-option", "-t", self.id, f"status-format[{number}]", theirs)
        job = f"exec {shlex.join(self._cspctl())} tmux --status".replace("#", "##")
        _tmux("set-option", "-t", self.id, f"status-format[{own}]", f" #({job})")
        _tmux("set-option", "-t", self.id, "status", str(own + 1) if own else "on")

    def _open(self, name: str, left: dict[str, int], last: dict[str, Pane]) -> None:
        """In the first window with room for it, else in a new one. tmux has the last word on what fits.

        `last` is the last pane of each window. `watch` stays it: in the layout `main` the first pane is the large one.
        """
        for window in [window for window, count in left.items() if count > 0]:
            before = ["-b"] if last[window].shows == WATCH else []
            split = ["split-window", "-d", *before, "-t", last[window].id, "-P", "-F", "#{pane_id}"]
            if pane := _try(*split, *self._command(name)).strip():
                break
            left[window] = 0
        else:
            new = ["new-window", "-d", "-t", f"{self.id}:", "-n", "agents", "-P", "-F"]
            made = _tmux(*new, "#{window_id} #{pane_id} #{window_width} #{window_height}", *self._command(name))
            window, pane, columns, rows = made.split()
            before = []
            left[window] = panes.fits(int(columns), int(rows), self._layout)
            self._dress_window(window)
        left[window] -= 1
        if not before:
            last[window] = Pane(pane, window, self.id, False, 0, 0, name)
        self._dress_pane(pane, name)
        self._arrange(window)  # after each one, or the space for the next would run out

    def _arrange(self, window: str) -> None:
        if self._layout == "main":
            columns = int(_tmux("display-message", "-p", "-t", window, "#{window_width}"))
            _tmux("set-option", "-w", "-t", window, "main-pane-width", str(columns * 3 // 5))
        _tmux("select-layout", "-t", window, LAYOUTS[self._layout])

    def _dress_window(self, window: str) -> None:
        for option, value in WINDOW_OPTIONS.items():
            _tmux("set-option", "-w", "-t", window, option, value)

    def _dress_pane(self, pane: str, name: str) -> None:
        """A pane that has ended already cannot be dressed; the next run opens it anew."""
        _try("set-option", "-p", "-t", pane, "@csp_pane", f"{self._instance}/{name}")
        _try("set-option", "-p", "-t", pane, "@csp_shows", name)

    def show(self) -> int:
        """Make this terminal the session's; in a pane of tmux already, its client switches: no tmux within tmux."""
        if os.environ.get("TMUX"):
            shown = not _run("switch-client", "-t", self.id).returncode
        elif shown := sys.stdin.isatty() and sys.stdout.isatty():
            sys.stdout.flush()
            os.execvp("tmux", ["tmux", "attach-session", "-t", self.id])
        if not shown:
            say(f"session {self.name} is there; look at it with: tmux attach -t {self.name}")
        return 0


@contextmanager
def _one_at_a_time(socket: str) -> Iterator[None]:
    """Two that find no session would make two."""
    directory = os.open(os.path.dirname(socket), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _size_here() -> tuple[int, int]:
    """Columns and rows that a new session will have when this terminal attaches to it."""
    if os.environ.get("TMUX"):
        columns, rows = _tmux("display-message", "-p", "#{window_width} #{window_height}").split()
        return int(columns), int(rows) - 1
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return WITHOUT_TERMINAL
    return (size.columns, size.lines - 2) if size.lines > 2 else WITHOUT_TERMINAL


def _check_version() -> None:
    if shutil.which("tmux") is None:
        raise CspError("tmux", "tmux: not found: it is not installed", "install tmux, or use cspctl attach NAME")
    told = _run("-V").stdout.strip()
    found = re.search(r"(\d+)\.(\d+)", told)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        raise CspError("tmux", f"{told}: too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed", "cspctl attach NAME")


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    # -u: else names are shown as _ where the locale is C; `;` at the end of a word would end the command
    done = [f"{word[:-1]}\\;" if word.endswith(";") else word for word in words]
    return subprocess.run(["tmux", "-u", *done], capture_output=True, text=True, errors="replace")


def _tmux(*words: str) -> str:
    """What tmux prints; raises CspError with tmux's own words."""
    done = _run(*words)
    if done.returncode:
        why = done.stderr.strip() or f"exit status {done.returncode}"
        raise CspError("tmux", f"tmux: {words[0]}: {why}")
    return done.stdout


def _try(*words: str) -> str:
    """What tmux prints; nothing where it refuses."""
    done = _run(*words)
    return "" if done.returncode else done.stdout
