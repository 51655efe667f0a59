"""Decides what an agent is doing from one view of its terminal, the time of silence and the profile's rules.

Every rule votes and says why, so that a decision can be explained; the highest priority wins. It keeps no memory.
"""

import attrs

from cspd.sidecar.profile import Activity, Profile, Region, Rule, When
from cspd.sidecar.view import View

__all__ = ["Activity", "Decision", "Vote", "decide"]

# Output that is younger than this means work, when no rule knows better. Measured with claude, codex and gemini: the
# longest silence while busy was 282 ms, 456 ms on a loaded machine.
QUIET_SEC = 0.7

LINES_SHOWN = 5


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
    `pending`: what it becomes when the silence lasts. Who publishes activities skips a decision whose `pending` equals
    what is published, or every echoed key would be a change to busy and back.
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


def decide(profile: Profile, view: View, silent_sec: float, since_start: float) -> Decision:
    """What the agent is doing. `silent_sec`: since its last output, or since its start when there was none."""
    votes = tuple(_vote(rule, view, silent_sec) for rule in profile.rules)
    matched = [(rule, vote) for rule, vote in zip(profile.rules, votes, strict=True) if vote.matched]
    winner = next(((rule, vote) for rule, vote in matched if vote.wait_sec == 0), None)
    above = matched[: matched.index(winner)] if winner else matched
    pending = above[0][1].activity if above else None
    waits = [vote.wait_sec for _, vote in above]
    if winner and winner[0].activity is Activity.BUSY and view.blank and since_start < profile.starting_sec:
        winner = None  # between fork and exec the agent is not yet the terminal's foreground group
    if winner:
        rule, vote = winner
        activity, kind, name, reason = rule.activity, rule.kind, rule.name, f"rule {rule.name}: {vote.why}"
    else:
        kind = name = ""
        activity, reason, wait = _without_rule(profile, view, silent_sec, since_start)
        waits += [wait] if wait is not None else []
    look_again_in = min(waits) if waits else None
    poll_in = None
    if activity is not Activity.IDLE and _changes_unseen(view):
        poll_in = min(profile.poll_sec, QUIET_SEC - silent_sec) if silent_sec < QUIET_SEC else profile.poll_sec
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


def _vote(rule: Rule, view: View, silent_sec: float) -> Vote:
    wrong = _wrong_fact(rule.when, view)
    if wrong:
        return Vote(rule.name, rule.activity, False, (), wrong)
    lines = _lines(rule, view)
    for pattern in rule.unless:
        if any(pattern.search(line) for line in lines):
            return Vote(rule.name, rule.activity, False, (), f"shows {pattern.pattern!r}")
    shown: list[str] = []
    for pattern in rule.match:
        found = [line for line in lines if pattern.search(line)]
        if not found:
            return Vote(rule.name, rule.activity, False, (), f"{pattern.pattern!r} is not on {rule.region.value}")
        shown += [line for line in found[-LINES_SHOWN:] if line not in shown]
    wait = max(0.0, rule.silence_sec - silent_sec)
    why = f"{shown[-1].strip()!r} on {rule.region.value}" if shown else _facts_asked(rule.when)
    if wait:
        why += f", but output {silent_sec:.2f} s ago ({rule.silence_sec:g} s of silence needed)"
    return Vote(rule.name, rule.activity, True, tuple(shown), why, wait)


def _lines(rule: Rule, view: View) -> list[str]:
    match rule.region:
        case Region.SCREEN:
            return view.lines()
        case Region.BOTTOM:
            end = view.last_row + 1
            return view.lines(max(0, end - rule.rows), end)
        case Region.CURSOR_ROW:
            row = view.line_start(view.cursor[0])
            return view.lines(row, view.cursor[0] + 1)
        case Region.BEFORE_CURSOR:
            return [view.before_cursor]
        case Region.TITLE:
            return [view.title]
        case Region.NONE:
            return []


def _wrong_fact(when: When, view: View) -> str:
    for field in attrs.fields(When):
        asked, present = getattr(when, field.name), getattr(view, field.name)
        if asked is None or asked == present or (field.name == "reading" and asked and present is None):
            continue
        return f"{field.name} is {str(present).lower()}"
    return ""


def _facts_asked(when: When) -> str:
    asked = {field.name: getattr(when, field.name) for field in attrs.fields(When)}
    return ", ".join(key if value else f"not {key}" for key, value in asked.items() if value is not None)
