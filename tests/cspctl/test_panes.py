"""Which panes are wanted, which are missing, how many fit, and that nothing of an agent is obeyed by tmux."""

import pytest

from cspctl.panes import (
    FORMAT,
    WATCH,
    Pane,
    choose,
    fits,
    missing,
    read_panes,
    room_left,
    states_line,
    with_watch_in_sight,
)
from cspd.errors import CspError

pytestmark = pytest.mark.pure


def agent(name: str, state: str = "running", activity: str | None = "idle", queued: int = 0) -> dict[str, object]:
    return {"name": name, "state": state, "activity": activity, "queued": queued}


def pane(shows: str, window: str = "@0", session: str = "$0", size: tuple[int, int] = (80, 24)) -> Pane:
    return Pane(f"%{shows}", window, session, False, *size, shows)


AGENTS = [agent("a"), agent("b", "backoff", None), agent("c", "inactive", None), agent("d", "failed", None)]


def test_without_names_all_agents_that_are_not_stopped_are_shown_and_the_others_told() -> None:
    assert choose([], AGENTS) == (["a", "b"], ["c is inactive", "d is failed"])


def test_names_are_shown_in_their_order_and_once() -> None:
    assert choose(["b", "a", "b"], AGENTS) == (["b", "a"], [])


@pytest.mark.parametrize(
    ("names", "agents", "code", "says"),
    [
        (["ghost"], AGENTS, "no-such-agent", "'ghost'"),
        (["c", "d"], AGENTS, "not-active", "c is inactive, d is failed"),
        ([], [], "not-active", "no agents"),
        ([], AGENTS[2:], "not-active", "c is inactive"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    names: list[str], agents: list[dict[str, object]], code: str, says: str
) -> None:
    with pytest.raises(CspError, match=says) as caught:
        choose(names, agents)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("columns", "rows", "layout", "count"),
    [
        (80, 24, "tiled", 6),
        (80, 22, "tiled", 4),
        (200, 50, "tiled", 30),
        (20, 4, "tiled", 1),
        (80, 24, "main", 4),
        (60, 24, "main", 1),
    ],
)
def test_a_pane_stays_large_enough_to_read(columns: int, rows: int, layout: str, count: int) -> None:
    assert fits(columns, rows, layout) == count


def test_only_what_has_no_pane_is_missing() -> None:
    assert missing(["a", "b", WATCH], [pane("a"), pane(WATCH)]) == ["b"]


def test_panes_of_other_instances_and_of_nobody_are_not_ours() -> None:
    text = "%1 @0 $0 0 80 24 f00/a\n%2 @0 $0 0 80 24 \n%3 @0 $0 1 80 24 bad/b\n%4 @1 $0 1 90 30 f00/watch\n"
    assert FORMAT.count(" ") == 6
    assert read_panes(text, "f00") == [
        Pane("%1", "@0", "$0", False, 80, 24, "a"),
        Pane("%4", "@1", "$0", True, 90, 30, WATCH),
    ]


def test_room_is_counted_in_windows_of_our_session_only() -> None:
    there = [pane("a"), pane("b"), pane("c", "@1"), pane("d", "@7", "$9")]
    assert room_left(there, "$0", "tiled") == {"@0": 4, "@1": 5}


def test_watch_stands_in_the_first_window_also_when_not_all_fit() -> None:
    assert with_watch_in_sight(["a", "b", WATCH], 3) == ["a", "b", WATCH]
    assert with_watch_in_sight(["a", "b", "c", "d", WATCH], 3) == ["a", "b", WATCH, "c", "d"]
    assert with_watch_in_sight(["a", "b", WATCH], 1) == ["a", WATCH, "b"]


def test_the_status_line_tells_what_runs_and_marks_what_needs_a_person() -> None:
    agents = [agent("a", queued=2), agent("b", activity="dialog"), *AGENTS[1:]]
    assert states_line(agents) == (
        "a idle +2 | b #[fg=red,bold]dialog#[fg=default,nobold]"
        " | b #[fg=yellow]backoff#[fg=default,nobold] | d #[fg=red]failed#[fg=default,nobold]"
    )
    assert states_line([agent("c", "inactive", None)]) == "no agent runs"
    assert states_line([agent("s", activity=None)]) == "s running"
