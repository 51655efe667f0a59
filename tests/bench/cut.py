"""A remote agent whose network is cut: python tests/bench/cut.py [--messages 100] [--cut 60]; as root, for a netns.

The agent runs under `cspctl run --gateway` in a network namespace of its own, and is sent as many messages as it says
itself. In the middle the cable is cut, so that packets of both sides are lost and neither is told. Counted is what came
out at the other end, how often, and when all had come after the cable was mended.
"""

import argparse
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the tests' own packages are

from real.bothways import BASH, BothWays
from real.faraway import FarAway, free_port, gateway_config, why_not
from real.instance import Instance, eventually
from real.outer import Outer

PATIENCE_SEC = 300.0
PACE_SEC = 0.5  # between two lines of somebody who types: a burst of them without a pause is one answer to the sidecar


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--cut", type=float, default=60.0, metavar="SEC")
    options = parser.parse_args()
    if reason := why_not():
        print(f"cut: cannot be measured here: {reason}")
        return 1
    root = Path(tempfile.mkdtemp(prefix="csp"))
    (root / "far" / "run").mkdir(parents=True)
    (root / "run").mkdir()
    near, far, port = Instance(root), Instance(root / "far"), free_port()
    gateway_config(root, f"0.0.0.0:{port}")
    near.start()
    try:
        with FarAway() as net:
            words = ("--gateway", f"ws://{net.here}:{port}", "--token-file", str(near.runtime / "token"), "--", *BASH)
            argv = [*net.there(sys.executable), "-m", "cspctl", "run", *words]
            with Outer(argv, far.env, 100) as outer:
                outer.until_shown("$")
                eventually(lambda: near.call("agent.list"), "it has registered")
                near.wait_idle("bash")
                faults = measure(BothWays(near, outer, "bash", root / "received"), net, options.messages, options.cut)
                outer.type("exit\r")
                outer.wait()
    finally:
        near.stop()
        shutil.rmtree(root)
    print("\n".join(faults) or "nothing lost, nothing doubled")
    return bool(faults)


def measure(both: BothWays, net: FarAway, count: int, cut_sec: float) -> list[str]:
    mended_at = 0.0

    def accident() -> None:
        nonlocal mended_at
        net.cut()
        time.sleep(cut_sec)  # so long the line is cut
        net.mend()
        mended_at = time.monotonic()

    trouble = threading.Thread(target=accident)
    numbers = 0

    def between() -> None:
        nonlocal numbers
        time.sleep(PACE_SEC)  # so that the messages lie before, in and behind the cut
        numbers += 1
        if numbers == count // 4:
            trouble.start()
        if numbers == count * 3 // 4:
            now = both.tally()
            print(f"cable cut: {now.typed.total()} of {numbers} typed, {now.heard.total()} heard", flush=True)
            trouble.join()

    tally = both.exchange(count, PATIENCE_SEC, between)
    print(f"{count} messages each way, cable cut for {cut_sec:g} s in the middle")
    print(f"all had come {time.monotonic() - mended_at:.1f} s after it was mended")
    return tally.faults(count)


if __name__ == "__main__":
    sys.exit(main())
