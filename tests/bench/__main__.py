"""python -m tests.bench [GROUP...] [--rounds N] [--json FILE]: everything that CSP claims to be fast at, in one table.

Peers (dtach, tmux, runit) are measured in turn with CSP where they are installed; ratios are medians over the rounds of
one run. Groups: attach, units, messages, growth. Run it on a machine that does nothing else.
"""

import argparse
import json
import os
import platform
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the tests' own packages are

from bench import attach, growth, messages, units
from bench.peers import peers
from bench.results import Results


def machine() -> str:
    model = "?"
    with open("/proc/cpuinfo") as f:
        model = next((line.partition(":")[2].strip() for line in f if line.startswith("model name")), model)
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def measure(groups: list[str], rounds: int) -> Results:
    results = Results()
    if "attach" in groups:
        with peers() as measured:
            for test in attach.ALL:
                print(f"{test.__name__} ...", file=sys.stderr)
                test(measured, results, rounds)
    for name, module in (("units", units), ("messages", messages), ("growth", growth)):
        if name in groups:
            module.measure(results, rounds)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every round")
    options = parser.parse_args()
    random.seed(1)
    groups = options.groups or ["attach", "units", "messages", "growth"]
    if unknown := set(groups) - {"attach", "units", "messages", "growth"}:
        parser.error(f"GROUP: {', '.join(sorted(unknown))}: expected attach, units, messages, growth")
    results = measure(groups, options.rounds)
    if options.json:
        figures = {each.what: each.values for each in (*results.rows.values(), *results.growths.values())}
        options.json.write_text(json.dumps(figures, indent=1))
    print(machine() + "\n")
    tables = [results.table()] if results.rows else []
    tables += [results.growth_table()] if results.growths else []
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
