"""Output on its way to the agent's keyword voice: kept until somebody wants to know what was said.

Piece by piece the ear takes 100 ms a megabyte, all together 5. Whose words they may be (the agent's own, or those of a
job that it runs) is asked when they come; what they mean is `voice`'s.
"""

import attrs

from cspd.profiles.profile import Profile
from cspd.sidecar.emulation import Emulation
from cspd.sidecar.intent import BURST_SIZE
from cspd.sidecar.sight import Sight
from cspd.sidecar.speech import Said
from cspd.sidecar.voice import Voice

MANY = 1 << 20  # bytes, none of which will be heard: nobody says so much without a pause


@attrs.define
class Hearing:
    profile: Profile
    voice: Voice
    sight: Sight
    emulation: Emulation
    _unheard: list[bytes] = attrs.Factory(list)
    _size: int = 0
    _own: bool = False  # they came while the agent itself had the terminal

    def add(self, output: bytes, now: float) -> list[Said]:
        if not self.voice.by_lines:
            return []
        own = self.sight.in_foreground()
        said = self.catch_up(now) if own is not self._own or self._size > MANY else []
        self._own = own
        self._unheard.append(output)
        self._size += len(output)
        return said

    def catch_up(self, now: float) -> list[Said]:
        if not self._unheard:
            return []
        data = b"".join(self._unheard)
        self._unheard.clear()
        self._size = 0
        return self.voice.output(data, now, listening=len(data) <= BURST_SIZE and self._listening())

    def _listening(self) -> bool:
        # In this order: a shell takes its terminal back after it has waited for the job, never before.
        own = self._own and not (self.profile.own_words_only and self.sight.ran_a_job())
        return own and not self.emulation.terminal.alternate
