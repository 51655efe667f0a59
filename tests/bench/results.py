"""Figures of a run, by what was measured and who was measured; ratios are taken within a round. Pure.

Absolute figures move by a factor of three with the load of the machine, so a claim is a ratio of two medians that were
taken in turn, or a limit that a person would notice.
"""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable

import attrs

Values = dict[str, list[float]]  # by who was measured, one figure a round


@attrs.frozen
class Goal:
    """What a row has to reach: a sentence for the table, and the judge of the run's figures."""

    text: str
    reached: Callable[[Values], bool]


@attrs.define
class Row:
    what: str
    unit: str
    base: str  # ratios are to this one
    goal: Goal | None = None
    values: Values = attrs.Factory(lambda: defaultdict(list))

    def add(self, who: str, value: float) -> None:
        self.values[who].append(value)

    def verdict(self) -> str:
        if self.goal is None or "csp" not in self.values:
            return ""
        return "yes" if self.goal.reached(self.values) else "**no**"


@attrs.define
class Growth:
    """One cost at several sizes of one thing."""

    what: str
    unit: str
    of: str
    values: dict[int, list[float]] = attrs.Factory(lambda: defaultdict(list))  # by size


@attrs.define
class Results:
    rows: dict[str, Row] = attrs.Factory(dict)
    growths: dict[str, Growth] = attrs.Factory(dict)

    def row(self, what: str, unit: str, base: str = "bare", goal: Goal | None = None) -> Row:
        return self.rows.setdefault(what, Row(what, unit, base, goal))

    def growth(self, what: str, unit: str, of: str) -> Growth:
        return self.growths.setdefault(what, Growth(what, unit, of))

    def growth_table(self) -> str:
        """Markdown: how each cost grows, at the smallest size first."""
        most = max((len(growth.values) for growth in self.growths.values()), default=0)
        lines = [_line(["how it grows", "with", *[""] * most]), _line(["---"] * (2 + most))]
        for growth in self.growths.values():
            cells = [f"{size:,}: {statistics.median(values):.3g}" for size, values in sorted(growth.values.items())]
            lines.append(_line([f"{growth.what} [{growth.unit}]", growth.of, *cells]))
        return "\n".join(lines)

    def table(self) -> str:
        """Markdown: a row for what was measured, a column for who was."""
        who = list(dict.fromkeys(name for row in self.rows.values() for name in row.values))
        who.sort(key=lambda name: name == "csp")  # ours last
        head = ["what", *who, "reach", "reached"]
        lines = [_line(head), _line(["---"] * len(head))]
        for row in self.rows.values():
            goal = row.goal.text if row.goal else ""
            cells = [_cell(row, name) for name in who]
            lines.append(_line([f"{row.what} [{row.unit}]" if row.unit else row.what, *cells, goal, row.verdict()]))
        return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Row, who: str) -> str:
    values = row.values.get(who)
    if not values:
        return "–"
    ratio = ratio_of(row.values, who, row.base)
    return f"{statistics.median(values):.3g}" + (f" (x{ratio:.3g})" if ratio is not None and who != row.base else "")


def ratio_of(values: Values, who: str, base: str) -> float | None:
    """The median of the ratios of each round; None where one of the two was not measured."""
    pairs = [(a, b) for a, b in zip(values.get(who, ()), values.get(base, ()), strict=False) if b]
    return statistics.median(a / b for a, b in pairs) if pairs else None


def at_most(limit: float, base: str = "bare") -> Goal:
    return Goal(f"at most x{limit:g} of {base}", lambda values: (ratio_of(values, "csp", base) or 1e9) <= limit)


def at_least(limit: float, base: str = "bare") -> Goal:
    return Goal(f"at least x{limit:g} of {base}", lambda values: (ratio_of(values, "csp", base) or 0) >= limit)


def no_worse_than(peer: str, *, more_is_better: bool = False) -> Goal:
    """Our median against the peer's, where it is installed."""

    def reached(values: Values) -> bool:
        ratio = ratio_of(values, "csp", peer)
        return ratio is not None and (ratio >= 1 if more_is_better else ratio <= 1)

    return Goal(f"{'at least' if more_is_better else 'at most'} {peer}'s", reached)


def below(limit: float) -> Goal:
    return Goal(f"at most {limit:g}", lambda values: statistics.median(values["csp"]) <= limit)


def above(limit: float) -> Goal:
    return Goal(f"at least {limit:g}", lambda values: statistics.median(values["csp"]) >= limit)


def beyond(limit: float, base: str) -> Goal:
    """The base is what the machine needs anyway."""

    def reached(values: Values) -> bool:
        pairs = zip(values["csp"], values[base], strict=False)
        return statistics.median(ours - theirs for ours, theirs in pairs) <= limit

    return Goal(f"at most {limit:g} beyond {base}", reached)
