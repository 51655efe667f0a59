"""Where a gateway is, as a person writes it: `ws://host:8765`. Pure."""

from typing import NamedTuple
from urllib.parse import urlsplit

from cspd.errors import CspError

PORT = 8765
SECURE = {"ws": False, "http": False, "wss": True, "https": True}


class Address(NamedTuple):
    """`prefix`: what stands before the paths, behind a reverse proxy."""

    host: str
    port: int
    secure: bool
    prefix: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Raises CspError("usage")."""
        problem = CspError("usage", f"gateway: {url!r}: not an address", "for example ws://host:8765")
        try:
            parts = urlsplit(url)
            secure = SECURE[parts.scheme]
            port = parts.port or (443 if secure else PORT)
        except (ValueError, KeyError):
            raise problem from None
        if not parts.hostname or parts.username is not None or parts.query or parts.fragment:
            raise problem
        return cls(parts.hostname, port, secure, parts.path.rstrip("/").removesuffix("/events"))

    @property
    def name(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
