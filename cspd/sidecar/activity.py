"""Decides what an agent is doing from one view of its terminal, the time of silence and the profile's rules.

Every rule votes and says why, so that a decision can be explained; the highest priority wins. The agent's own hooks
vote as well: a young one is believed before the screen, an old one only where no rule knows the screen, because an
interrupt by Esc fires no hook in some programs. It keeps no memory.
"""

import attrs

from cspd.profiles.profile import Activity, Hook, Profile, Region, Rule, When
from cspd.sidecar.box import input_box
from cspd.sidecar.view import View

__all__ = ["Activity", "Decision", "Heard", "Vote", "decide"]

# Output that is younger than this means work, when no rule knows better. Measured with claude, codex and gemini: the
# longest silence while busy was 282 ms, 456 ms on a loaded machine.
QUIET_SEC = 0.7

# A hook comes before the screen has changed, and is overtaken by it. Between two tools claude was seen to work on for
# less than half a second without a sign of it.
HOOK_YOUNG_SEC = 1.5

LINES_SHOWN = 5

# What a hook says, and with which priority while it is young.
_HOOK_SAYS = {
    Hook.PROMPT: (Activity.BUSY, 84),
    Hook.TOOL: (Activity.BUSY, 84),
    Hook.DIALOG: (Activity.DIALOG, 95),
    Hook.END: (Activity.IDLE, 52),
}
_HOOK_OLD = 5
HOOK = "hook"  # its vote's name among the rules


@attrs.frozen
class Heard:
    """The last hook of the agent that says something of its activity."""

    event: str
    meaning: Hook
    age_sec: float


@attrs.frozen
class Vote:
    """What one rule says. `matched` without regard to silence; it decides only when `wait_sec` is 0."""

    rule: str
    activity: Activity
    matched: bool
    lines: tuple[str, ...]
    why: str
    wait_sec: float = 0.0


@attrs.frozen
class Decision:
    """The activity, the rule that decided it ("" = none did) and all votes.

    `look_again_in`: seconds after which silence alone could change the answer; None = only output can change it.
    `poll_in`: the same for facts that nothing announces; to be heeded only while somebody waits for the answer, so that
    an agent whom nobody asks for anything costs no wake-up.
    `pending`: what it becomes when the silence lasts. A decision whose `pending` equals what is published is not told,
    or every echoed key would be a change to busy and back.
    """

    activity: Activity
    dialog_kind: str
    rule: str
    reason: str
    rules: tuple[Vote, ...]
    look_again_in: float | None
    silent_sec: float
    pending: Activity | None = None
    poll_in: float | None = None


def decide(profile: Profile, view: View, silent_sec: float, since_start: float, heard: Heard | None = None) -> Decision:
    """What the agent is doing. `silent_sec`: since its last output, or since its start when there was none."""
    scene = _Scene(view, input_box(profile, view), silent_sec)
    ranked = [(rule.priority, rule.kind, _vote(rule, scene)) for rule in profile.rules]
    if heard is not None and heard.meaning in _HOOK_SAYS:
        ranked.append(_hook_vote(heard, scene))
        ranked.sort(key=lambda entry: -entry[0])
    matched = [(kind, vote) for _, kind, vote in ranked if vote.matched]
    winner = next(((kind, vote) for kind, vote in matched if vote.wait_sec == 0), None)
    above = matched[: matched.index(winner)] if winner else matched
    pending = above[0][1].activity if above else None
    waits = [vote.wait_sec for _, vote in above]
    if heard is not None and heard.age_sec < HOOK_YOUNG_SEC:
        waits.append(HOOK_YOUNG_SEC - heard.age_sec)
    if winner and view.blank and since_start < profile.starting_sec and not view.reading:
        winner = None  # not yet the foreground group, or not yet out of the line mode in which every program starts
    if winner:
        kind, vote = winner
        activity, name = vote.activity, vote.rule
        reason = vote.why if vote.rule == HOOK else f"rule {vote.rule}: {vote.why}"
    else:
        kind = name = ""
        activity, reason, wait = _without_rule(profile, view, silent_sec, since_start)
        waits += [wait] if wait is not None else []
    look_again_in = min(waits) if waits else None
    poll_in = None
    if activity is not Activity.IDLE and _changes_unseen(view):
        poll_in = min(profile.poll_sec, QUIET_SEC - silent_sec) if silent_sec < QUIET_SEC else profile.poll_sec
    votes = tuple(vote for _, _, vote in ranked)
    return Decision(activity, kind, name, reason, votes, look_again_in, silent_sec, pending, poll_in)


def _without_rule(
    profile: Profile, view: View, silent_sec: float, since_start: float
) -> tuple[Activity, str, float | None]:
    if view.blank and since_start < profile.starting_sec:
        return Activity.STARTING, "nothing shown yet", profile.starting_sec - since_start
    if silent_sec < QUIET_SEC:
        return (
            Activity.BUSY,
            f"output {silent_sec:.2f} s ago, and no rule knows the screen",
            QUIET_SEC - silent_sec,
        )
    return Activity.UNKNOWN, f"no rule knows the screen, silent for {silent_sec:.1f} s", None


def _changes_unseen(view: View) -> bool:
    """Can the facts of the tty change without output? A program may begin to read a line and print nothing."""
    return not view.foreground or view.password or (view.canonical and view.reading is False)


@attrs.frozen
class _Scene:
    view: View
    box: tuple[int, int] | None
    silent_sec: float


def _hook_vote(heard: Heard, scene: _Scene) -> tuple[int, str, Vote]:
    """-> (priority, kind of dialog, vote)"""
    activity, priority = _HOOK_SAYS[heard.meaning]
    young = heard.age_sec < HOOK_YOUNG_SEC
    why = f"the agent's hook {heard.event} {heard.age_sec:.1f} s ago"
    matched = True
    if activity is Activity.IDLE and (not young or scene.box is None):
        # It only saves the silence: where no input box is seen nobody knows what the agent waits for.
        matched, why = False, why + (", the screen counts" if not young else ", but no input box is seen")
    vote = Vote(HOOK, activity, matched, (), why)
    return priority if young else _HOOK_OLD, "permission" if activity is Activity.DIALOG else "", vote


def _vote(rule: Rule, scene: _Scene) -> Vote:
    wrong = _wrong_fact(rule.when, scene)
    if wrong:
        return Vote(rule.name, rule.activity, False, (), wrong)
    lines = _lines(rule, scene)
    for pattern in rule.unless:
        if any(pattern.search(line) for line in lines):
            return Vote(rule.name, rule.activity, False, (), f"shows {pattern.pattern!r}")
    shown: list[str] = []
    for pattern in rule.match:
        found = [line for line in lines if pattern.search(line)]
        if not found:
            return Vote(rule.name, rule.activity, False, (), f"{pattern.pattern!r} is not on {rule.region.value}")
        shown += [line for line in found[-LINES_SHOWN:] if line not in shown]
    wait = max(0.0, rule.silence_sec - scene.silent_sec)
    why = f"{shown[-1].strip()!r} on {rule.region.value}" if shown else _facts_asked(rule.when)
    if wait:
        why += f", but output {scene.silent_sec:.2f} s ago ({rule.silence_sec:g} s of silence needed)"
    return Vote(rule.name, rule.activity, True, tuple(shown), why, wait)


def _lines(rule: Rule, scene: _Scene) -> list[str]:
    view, box = scene.view, scene.box
    match rule.region:
        case Region.SCREEN:
            return view.lines()
        case Region.BOTTOM:
            end = view.last_row + 1
            return view.lines(max(0, end - rule.rows), end)
        case Region.ABOVE_BOX if box is not None:
            return view.lines(max(0, box[0] - rule.rows), box[0])
        case Region.BELOW_BOX if box is not None:
            return view.lines(box[1], box[1] + rule.rows)
        case Region.CURSOR_ROW:
            row = view.line_start(view.cursor[0])
            return view.lines(row, view.cursor[0] + 1)
        case Region.BEFORE_CURSOR:
            return [view.before_cursor]
        case Region.TITLE:
            return [view.title]
        case _:
            return []


def _wrong_fact(when: When, scene: _Scene) -> str:
    for field in attrs.fields(When):
        asked = getattr(when, field.name)
        present = scene.box is not None if field.name == "box" else getattr(scene.view, field.name)
        if asked is None or asked == present or (field.name == "reading" and asked and present is None):
            continue
        return f"{field.name} is {str(present).lower()}"
    return ""


def _facts_asked(when: When) -> str:
    asked = {field.name: getattr(when, field.name) for field in attrs.fields(When)}
    return ", ".join(key if value else f"not {key}" for key, value in asked.items() if value is not None)
