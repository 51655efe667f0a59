"""The dialect of every CSP socket: one number, sent in the first frame each way.

Fields are added, never changed, so the number only rises when an old peer could not go on. Unknown fields are ignored.
"""

from cspd.errors import CspError

PROTOCOL = 1
OLDEST = 1  # the oldest dialect that this version still speaks

GIVES_WAY = 75  # exit status by which a sidecar asks the keeper for another one: it leaves nothing undone


def check_protocol(theirs: object, who: str) -> int:
    """The dialect to speak with a peer that offers `theirs`; raises CspError("protocol") when there is none."""
    if type(theirs) is not int or theirs < OLDEST:
        raise CspError(
            "protocol",
            f"{who}: protocol {theirs!r}: this side speaks {OLDEST} to {PROTOCOL}",
            "install the same version on both sides",
        )
    return min(theirs, PROTOCOL)
