"""What `cspctl tmux` wants on the screen: which panes are missing, how many fit, what borders and status line say.

Pure. tmux itself is run by `tmux`.
"""

from __future__ import annotations

from typing import NamedTuple

from cspd.errors import CspError, nearest

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

LAYOUTS = {"tiled": "tiled", "main": "main-vertical"}
WATCH = "watch"
# An agent's program can be read in a pane of this size, with its border; below it a window of its own is better.
COLUMNS_MIN, ROWS_MIN = 40, 8
SHOWABLE = ("starting", "running", "backoff", "stopping")
FORMAT = "#{pane_id} #{window_id} #{session_id} #{?@csp_ended,1,0} #{window_width} #{window_height} #{@csp_pane}"

# The agent's own title stands behind its name; `q/h` makes it text, whatever an agent writes into it.
BORDER = (
    " #{?pane_active,#[bold],}#{@csp_shows}#[default]"
    "#{?@csp_ended, (ended),"
    "#{?#{||:#{==:#{pane_title},},#{==:#{pane_title},#{@csp_shows}}},, · #{=/60/…;q/h:pane_title}}} "
)
COLOURS = {"busy": "green", "dialog": "red,bold", "failed": "red", "backoff": "yellow"}


class Pane(NamedTuple):
    """A pane of ours, as tmux reports it with FORMAT."""

    id: str
    window: str
    session: str
    ended: bool  # it only waits for Enter
    columns: int  # of its window
    rows: int
    shows: str  # an agent's name, or WATCH


def read_panes(text: str, instance: str) -> list[Pane]:
    """The panes that belong to this instance of CSP, in tmux's order."""
    panes = []
    for line in text.splitlines():
        pane, window, session, ended, columns, rows, *rest = line.split(" ")
        owner, _, shows = (rest or [""])[0].partition("/")
        if owner == instance:
            panes.append(Pane(pane, window, session, ended == "1", int(columns), int(rows), shows))
    return panes


def choose(names: Sequence[str], agents: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """-> (agents to show, words about those that are left out). Without names all that run.

    Raises CspError for a name that is not known, and when nothing is left.
    """
    known = {agent["name"]: agent for agent in agents}
    for name in names:
        if name not in known:
            raise CspError("no-such-agent", f"agent: {name!r}: not known", nearest(name, known) or "cspctl list")
    wanted = list(dict.fromkeys(names or known))
    shown = [name for name in wanted if known[name]["state"] in SHOWABLE]
    left_out = [f"{name} is {known[name]['state']}" for name in wanted if name not in shown]
    if not known:
        raise CspError("not-active", "tmux: no agents: nothing to show", "cspctl add claude -- claude")
    if not shown:
        raise CspError("not-active", f"tmux: nothing to show: {', '.join(left_out)}", f"cspctl start {wanted[0]}")
    return shown, left_out


def fits(columns: int, rows: int, layout: str) -> int:
    """How many panes a window of this size takes before each is too small to read."""
    beside, below = max(1, columns // COLUMNS_MIN), max(1, rows // ROWS_MIN)
    if layout == "main":
        return 1 + below if beside > 1 else 1
    return beside * below


def missing(wanted: Iterable[str], panes: Iterable[Pane]) -> list[str]:
    """What of `wanted` has no pane; one that has ended counts: it is shown again in its place."""
    there = {pane.shows for pane in panes}
    return [name for name in wanted if name not in there]


def with_watch_in_sight(names: Sequence[str], room: int) -> list[str]:
    """`watch` stands beside the first agents, also where not all of them fit into one window."""
    if WATCH not in names or len(names) <= room:
        return list(names)
    others = [name for name in names if name != WATCH]
    return [*others[: max(1, room - 1)], WATCH, *others[max(1, room - 1) :]]


def room_left(panes: Iterable[Pane], session: str, layout: str) -> dict[str, int]:
    """window of the session -> how many more panes fit."""
    left: dict[str, int] = {}
    for pane in panes:
        if pane.session == session:
            left[pane.window] = left.get(pane.window, fits(pane.columns, pane.rows, layout)) - 1
    return left


def states_line(agents: Iterable[Mapping[str, Any]]) -> str:
    """The agents that are not stopped and what each does, in tmux's markup. Only fixed words and names."""
    words = []
    for agent in agents:
        state = agent["state"]
        if state == "inactive":
            continue
        word = agent["activity"] or state if state == "running" else state
        colour = COLOURS.get(word)
        queued = f" +{agent['queued']}" if agent.get("queued") else ""
        words.append(f"{agent['name']} {f'#[fg={colour}]{word}#[fg=default,nobold]' if colour else word}{queued}")
    return " | ".join(words) or "no agent runs"
