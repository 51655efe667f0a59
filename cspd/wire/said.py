"""The id of a message that its sender may have to say again, because the answer to it was lost. Pure."""

import hashlib


def message_id_of(agent: str, said_id: str) -> str:
    """The same for the same saying, on both sides; "" without `said_id`.

    `said_id` is the sender's own, and as good as random: nobody else's saying has it.
    """
    return hashlib.sha256(f"{agent}/{said_id}".encode("utf-8", "replace")).hexdigest()[:20] if said_id else ""
