"""What every sidecar does at its start, done once in the process that they are forked from.

Measured: of 8 MB that a fresh one had for itself, 3 were what the library's first calls leave behind and the rules of
its profile; forked behind this they are shared, and it starts in a third of the time.
"""

import gc

import cspd.sidecar.main  # noqa: F401  # all that a sidecar imports
from cspd.paths import Paths
from cspd.profiles.find import examine_profile, profile_texts
from cspd.sidecar.rehearsal import rehearse
from cspd.sidecar.repaint import repaint
from cspd.sidecar.terminal import Terminal


def warm_up(paths: Paths) -> None:
    """No terminal, no thread and no loop is left; what was read of profiles is used for as long as it is so."""
    first = Terminal(80, 24)
    first.feed(b"\x1b]2;warm\x07\x1b[1;31mred\x1b[m\r\n")
    again = Terminal.restore(first.snapshot())
    again.screen_lines()
    again.wrapped()
    again.mode(2004)
    repaint(again, scrollback=True)
    first.close()
    again.close()
    for name in profile_texts(paths):
        examine_profile(name, paths)  # of a broken one those speak that it is for
    rehearse(paths)
    gc.collect()
    gc.freeze()  # the collector would otherwise write into shared pages
