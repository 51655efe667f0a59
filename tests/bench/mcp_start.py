"""python tests/bench/mcp_start.py [RUNS]: what `cspctl mcp` costs up to its first reply, beside a bare start of Python.

Starts a cspd of its own. Prints medians, their ratio (it must stay below 2) and the waiting server's private memory.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the tests' own packages are

from real.instance import Instance

INITIALIZE = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}\n'
PIPE = [sys.executable, "-P", "-m", "cspctl", "mcp"]


def bare() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - began


def first_reply(instance: Instance) -> tuple[float, int]:
    """-> (seconds, kB)"""
    began = time.perf_counter()
    with subprocess.Popen(PIPE, env=instance.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(INITIALIZE)
        process.stdin.flush()
        process.stdout.readline()
        took = time.perf_counter() - began
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return took, sum(int(line.split()[1]) for line in rollup if line.startswith("Private"))


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    root = Path(tempfile.mkdtemp(prefix="csp"))
    (root / "run").mkdir()
    instance = Instance(root)
    instance.start()
    try:
        pairs = [(bare(), *first_reply(instance)) for _ in range(runs)]
    finally:
        instance.stop()
        shutil.rmtree(root)
    python, server = (statistics.median(pair[index] for pair in pairs) for index in (0, 1))
    ratio = server / python
    print(f"python {1000 * python:.1f} ms, cspctl mcp {1000 * server:.1f} ms, ratio {ratio:.2f} (limit 2)")
    print(f"private memory {max(pair[2] for pair in pairs) / 1024:.1f} MB (limit 8)")
    return 0 if ratio < 2 else 1


if __name__ == "__main__":
    sys.exit(main())
