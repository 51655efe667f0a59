"""What stands in a unit's file now beside what was read of it: a start takes the latter, and says so.

A file that nobody has touched since is not read again. When the answer is asked for, and who is told, is `daemon`'s.
"""

import attrs

from cspd.config import UnitConfig
from cspd.configfile import known_profiles, unit_at
from cspd.paths import Paths

Stamp = tuple[int, ...]


@attrs.define
class UnitNews:
    paths: Paths
    _read: dict[str, Stamp] = attrs.Factory(dict)  # of the files that were found to say what is known

    def of(self, config: UnitConfig) -> str:
        """One sentence; "" when the file says what `config` does."""
        path = self.paths.unit_file(config.name)
        try:
            stat = path.stat()
        except OSError:
            return f"{path} is gone: what was read of it counts until the agent is removed"
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if self._read.get(config.name) == stamp:
            return ""
        written, problems = unit_at(path, known_profiles(self.paths))
        if written is None:
            return f"{'; '.join(problems)}: what was read before counts until that is mended"
        if written != config:
            return f"{path} has changed: it counts after `cspctl reload`"
        self._read[config.name] = stamp
        return ""

    def forget(self, name: str) -> None:
        """Something else may be known of it now."""
        self._read.pop(name, None)
