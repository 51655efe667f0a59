"""What whoever started this process left open in it goes to none of its children.

An agent would hold a shell's lock or pipe for as long as it lives, csp-keeper the lock of a cspd that was replaced.
Standard library only.
"""

import os


def keep_inherited() -> None:
    """Call before anything is started. Python's own descriptors are for this process alone from the beginning."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd <= 2:
            continue
        try:
            os.set_inheritable(fd, False)
        except OSError:
            pass  # the one by which the folder was read
