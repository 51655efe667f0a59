"""The profiles of Claude Code, Codex and Gemini CLI against recorded screens of these programs."""

import attrs
import pytest
from sidecar.screens import CLIS, names_of, profile_of, screen

from cspd.profiles.profile import Hook
from cspd.sidecar.activity import Activity, Decision, Heard, decide
from cspd.sidecar.box import Place, Trace, box_rows, input_box, is_empty, is_occupied
from cspd.sidecar.view import View

pytestmark = pytest.mark.pure

ALL = [(cli, name) for cli in CLIS for name in names_of(cli)]
SHOWS = {
    "busy": Activity.BUSY,
    "busy-draft": Activity.BUSY,
    "streaming": Activity.BUSY,
    "dialog": Activity.DIALOG,
    "trust": Activity.DIALOG,
}
STILL_BUSY = {("claude", "error"), ("claude", "menu"), ("gemini", "error"), ("gemini", "menu")}  # they try again
DRAFTS = {"draft", "short-paste", "long-paste", "busy-draft", "menu"}


def state_of(cli: str, name: str) -> Activity:
    state = name.rpartition("-")[0]
    return Activity.BUSY if (cli, state) in STILL_BUSY else SHOWS.get(state, Activity.IDLE)


def decided(cli: str, view: View, silent_sec: float = 2.0, heard: Heard | None = None) -> Decision:
    return decide(profile_of(cli), view, silent_sec, 60.0, heard)


@pytest.mark.parametrize(("cli", "name"), ALL)
def test_the_profile_knows_what_the_program_is_doing(cli: str, name: str) -> None:
    decision = decided(cli, screen(cli, name))
    assert decision.activity is state_of(cli, name), decision.reason


@pytest.mark.parametrize(("cli", "name"), ALL)
def test_without_a_title_the_screen_alone_never_says_idle_over_a_dialog(cli: str, name: str) -> None:
    decision = decided(cli, attrs.evolve(screen(cli, name), title=""))
    expected = state_of(cli, name)
    if expected is Activity.DIALOG or name.startswith(("busy-1", "busy-8", "busy-p", "idle")):
        assert decision.activity is expected, decision.reason


@pytest.mark.parametrize(("cli", "name"), ALL)
def test_the_input_box_is_found_wherever_the_program_takes_input(cli: str, name: str) -> None:
    view, profile = screen(cli, name), profile_of(cli)
    in_dialog = state_of(cli, name) is Activity.DIALOG
    assert (input_box(profile, view) is None) is in_dialog
    leftover = cli == "gemini" and name.startswith("after-busy")
    if not in_dialog and not leftover:
        assert is_occupied(profile, view) is (name.rpartition("-")[0] in DRAFTS)
        assert is_empty(profile, view, None) is not is_occupied(profile, view)


@pytest.mark.parametrize("cli", CLIS)
def test_young_output_is_not_idle_yet_and_will_be(cli: str) -> None:
    decision = decided(cli, screen(cli, "idle-120"), silent_sec=0.1)
    assert (decision.activity, decision.pending) == (Activity.BUSY, Activity.IDLE)
    assert decision.look_again_in == pytest.approx(0.25)


def test_a_sign_of_work_that_a_resize_left_on_the_screen_does_not_outdo_the_title() -> None:
    left_behind = attrs.evolve(screen("gemini", "busy-120"), title="◇  Ready (work)")
    assert decided("gemini", left_behind).activity is Activity.IDLE
    assert decided("gemini", left_behind, silent_sec=0.1).activity is Activity.BUSY


@pytest.mark.parametrize("size", ["120", "80"])
@pytest.mark.parametrize("cli", CLIS)
def test_a_message_is_seen_in_the_box_and_seen_to_have_left_it(cli: str, size: str) -> None:
    profile, idle, pasted = profile_of(cli), screen(cli, f"idle-{size}"), screen(cli, f"short-paste-{size}")
    trace = Trace.of(profile, idle, "[Context: codex sent a message]\nplease look at the log")
    assert trace.seen(idle) is None
    assert trace.seen(pasted) is Place.BOX
    assert trace.alone(pasted, Place.BOX)
    assert trace.stands(idle, Place.BOX) is False


@pytest.mark.parametrize("size", ["120", "80"])
@pytest.mark.parametrize("cli", CLIS)
def test_a_long_paste_is_seen_as_the_placeholder_that_the_program_shows(cli: str, size: str) -> None:
    profile, idle, pasted = profile_of(cli), screen(cli, f"idle-{size}"), screen(cli, f"long-paste-{size}")
    trace = Trace.of(profile, idle, "[Context: codex sent a message]\nline 59 of a long text")
    assert trace.seen(pasted) is Place.PLACEHOLDER
    assert trace.stands(pasted, Place.PLACEHOLDER) is True
    assert trace.stands(idle, Place.PLACEHOLDER) is False


@pytest.mark.parametrize("cli", CLIS)
def test_a_submitted_text_is_recognised_above_the_box(cli: str) -> None:
    trace = Trace.of(
        profile_of(cli), screen(cli, "idle-120"), "[Context: codex sent a message]\nplease look at the log"
    )
    assert trace.shown_elsewhere(screen(cli, "answered-120"))
    assert not trace.shown_elsewhere(screen(cli, "short-paste-120"))


@pytest.mark.parametrize("cli", CLIS)
def test_an_older_prompt_behind_a_dialog_is_not_the_input_box(cli: str) -> None:
    view, profile = screen(cli, "dialog-120"), profile_of(cli)
    rows = box_rows(profile, view)
    assert input_box(profile, view) is None
    assert rows is None or "please touch" in rows[0]


def test_an_answer_that_looks_like_a_choice_does_not_make_a_dialog() -> None:
    view = screen("claude", "answered-120")
    box = input_box(profile_of("claude"), view)
    assert box is not None
    rows = list(view.rows)
    rows[box[0] - 4 : box[0] - 1] = ["  ❯ 1. Yes", "    2. No", "  press esc to interrupt, enter to confirm"]
    assert decided("claude", attrs.evolve(view, rows=tuple(rows))).activity is Activity.IDLE


# --- hooks -------------------------------------------------------------------------------------------------------


def heard(meaning: Hook, age_sec: float) -> Heard:
    return Heard("SomeEvent", meaning, age_sec)


@pytest.mark.parametrize("cli", CLIS)
def test_a_young_hook_is_believed_before_the_screen_and_an_old_one_is_not(cli: str) -> None:
    idle = screen(cli, "idle-120")
    young = decided(cli, idle, heard=heard(Hook.PROMPT, 0.2))
    assert (young.activity, young.rule) == (Activity.BUSY, "hook")
    assert young.look_again_in == pytest.approx(1.3)
    assert decided(cli, idle, heard=heard(Hook.DIALOG, 0.2)).activity is Activity.DIALOG
    # Esc fires no hook in claude and codex: the screen says that it is over.
    assert decided(cli, idle, heard=heard(Hook.PROMPT, 1.6)).activity is Activity.IDLE


def test_an_old_hook_decides_where_no_rule_knows_the_screen() -> None:
    strange = View(rows=("something new",), cursor=(0, 0), canonical=False)
    assert decided("claude", strange, heard=heard(Hook.PROMPT, 9.0)).activity is Activity.BUSY
    assert decided("claude", strange, heard=heard(Hook.DIALOG, 9.0)).activity is Activity.DIALOG


def test_the_end_of_a_turn_saves_the_silence_but_never_says_idle_without_an_input_box() -> None:
    idle, dialog = screen("claude", "idle-120"), screen("claude", "dialog-120")
    assert decided("claude", idle, silent_sec=0.0, heard=heard(Hook.END, 0.1)).activity is Activity.IDLE
    assert decided("claude", dialog, heard=heard(Hook.END, 0.1)).activity is Activity.DIALOG
    strange = View(rows=("something new",), cursor=(0, 0), canonical=False)
    for age_sec in (0.1, 9.0):
        assert decided("claude", strange, heard=heard(Hook.END, age_sec)).activity is Activity.UNKNOWN


def test_a_hook_votes_among_the_rules_with_its_reason() -> None:
    decision = decided("claude", screen("claude", "idle-120"), heard=heard(Hook.TOOL, 0.5))
    vote = next(vote for vote in decision.rules if vote.rule == "hook")
    assert vote.why == decision.reason == "the agent's hook SomeEvent 0.5 s ago"


@pytest.mark.parametrize(("cli", "marks"), [("claude", "❯"), ("codex", "›"), ("gemini", " > ")])
def test_a_box_in_shell_mode_is_no_place_for_a_message(cli: str, marks: str) -> None:
    view = screen(cli, "idle-120")
    box = input_box(profile_of(cli), view)
    assert box is not None
    rows = list(view.rows)
    rows[box[0]] = rows[box[0]].replace(marks.strip(), "!", 1)
    assert decided(cli, attrs.evolve(view, rows=tuple(rows))).activity is not Activity.IDLE
