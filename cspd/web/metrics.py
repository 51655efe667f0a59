"""What the gateway counts, and the page of it for Prometheus. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

KIND = "text/plain; version=0.0.4; charset=utf-8"


@attrs.define(eq=False)
class Counts:
    """Since cspd was started."""

    requests: Counter[int] = attrs.Factory(Counter)  # by status
    dropped: Counter[str] = attrs.Factory(Counter)  # subscribers, by reason
    connections: int = 0
    turned_away: int = 0  # no room for them


Sample = tuple[Mapping[str, str], float]


def family(name: str, kind: str, help: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inner}}} {value:.15g}" if inner else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


HELP: Mapping[str, str] = {
    "csp_uptime_seconds": "How long cspd has been running.",
    "csp_connections": "Connections of the gateway.",
    "csp_subscribers": "Connections that follow the events, those on the control socket too.",
    "csp_rooms": "Rooms.",
    "csp_event_cursor": "The newest event's cursor.",
    "csp_history_commits_total": "Transactions of the history.",
    "csp_connections_total": "Connections that the gateway has accepted.",
    "csp_connections_turned_away_total": "Connections for which there was no room.",
}


def page(counts: Counts, agents: Iterable[Mapping[str, Any]], now: Mapping[str, float]) -> str:
    """`agents` as `agent.list` gives them; `now` has the values of HELP."""
    rows = list(agents)
    states = Counter(str(agent["state"]) for agent in rows)
    return "".join(
        [
            *(
                family(name, "counter" if name.endswith("_total") else "gauge", help, [({}, now[name])])
                for name, help in HELP.items()
            ),
            family("csp_agents", "gauge", "Agents by state.", [({"state": s}, n) for s, n in sorted(states.items())]),
            family("csp_inbox_messages", "gauge", "Messages that wait, by agent.", _of(rows, "queued")),
            family("csp_agent_restarts_total", "counter", "Restarts, by agent.", _of(rows, "restarts")),
            family("csp_agent_attached", "gauge", "Attached terminals, by agent.", _of(rows, "attached")),
            family(
                *("csp_http_requests_total", "counter", "Requests, by status."),
                [({"status": str(status)}, n) for status, n in sorted(counts.requests.items())],
            ),
            family(
                *("csp_subscribers_dropped_total", "counter", "Subscribers that were let go, by reason."),
                [({"reason": reason}, n) for reason, n in sorted(counts.dropped.items())],
            ),
        ]
    )


def _of(rows: Iterable[Mapping[str, Any]], key: str) -> list[Sample]:
    return [({"agent": str(row["name"])}, row[key]) for row in rows]
