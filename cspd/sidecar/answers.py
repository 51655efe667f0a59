"""What passes between a sidecar and cspd in JSON: its answers when people ask about its agent, and its messages.

Values only. What they show is `terminal`'s, `activity`'s and `arbiter`'s.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import attrs

from cspd.profiles.profile import Profile
from cspd.sidecar.activity import Activity, Decision
from cspd.sidecar.orders import Report
from cspd.sidecar.repaint import repaint
from cspd.sidecar.safetext import render
from cspd.sidecar.terminal import Terminal
from cspd.sidecar.view import View


def screen(terminal: Terminal, *, scrollback: bool, ansi: bool) -> dict[str, Any]:
    if ansi:
        text = repaint(terminal, scrollback=scrollback).decode("utf-8", "replace")
    else:
        text = "\n".join(terminal.history_lines() if scrollback else terminal.screen_lines())
    return {
        "text": text,
        "rows": terminal.rows,
        "columns": terminal.columns,
        "cursor": list(terminal.cursor),
        "title": terminal.title,
        "alternate": terminal.alternate,
    }


def not_looked(published: Activity) -> dict[str, Any]:
    return {"activity": published.value, "reason": "no look was taken yet", "rules": [], "view": {}}


def explained(profile: Profile, decision: Decision, view: View) -> dict[str, Any]:
    """Every rule of the profile, and the facts of the terminal that it was held against."""
    rules = [
        {
            "rule": vote.rule,
            "activity": vote.activity.value,
            "matched": vote.matched,
            "lines": list(vote.lines),
            "why": vote.why,
        }
        for vote in decision.rules
    ]
    facts = attrs.asdict(view, filter=lambda field, _: field.name not in ("rows", "wrapped"))
    facts["silent_sec"] = round(decision.silent_sec, 3)
    return {
        "activity": decision.activity.value,
        "reason": decision.reason,
        "profile": profile.name,
        "rules": rules,
        "view": facts,
    }


def in_hand(reports: Iterable[Report], follows: Collection[str]) -> list[dict[str, Any]]:
    """What is known of messages, for a cspd that has just come; of those in `follows` it will hear step by step."""
    return [
        {"message_id": r.message_id, "step": r.step, "reason": r.reason, "follows": r.message_id in follows}
        for r in reports
    ]


def to_type(template: str, message: Mapping[str, Any], mode_characters: str) -> str:
    """The text of a message that cspd hands over, made safe and behind its header."""
    to = message["to"]
    return render(
        template,
        message["from"],
        message["content"],
        room=message["room"],
        to=to if isinstance(to, str) else ", ".join(to),
        message_id=message["message_id"],
        mode_characters=mode_characters,
    )
