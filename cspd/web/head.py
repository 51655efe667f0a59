"""What the head of an HTTP request says, and whether a request may be answered at all. Pure.

Host and Origin are checked because a web page can make its reader's browser ask us (DNS rebinding): the name that it
used is then the page's own, not ours.
"""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlsplit

import attrs

from cspd.errors import CspError

LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})
QUERY_FIELDS_MAX = 32


class Refused(Exception):
    """This request gets no more than this answer; the connection ends behind it."""

    def __init__(self, status: int, problem: CspError, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(problem.sentence)
        self.status = status
        self.problem = problem
        self.headers = tuple(headers)


@attrs.frozen
class Head:
    """A request without its body. Names of headers are lower-case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    def wants(self, kind: str) -> bool:
        return any(part.split(";")[0].strip() == kind for part in self.headers.get("accept", "").lower().split(","))

    @property
    def upgrades(self) -> bool:
        """It asks for a WebSocket."""
        tokens = {word.strip() for word in self.headers.get("connection", "").lower().split(",")}
        return self.headers.get("upgrade", "").lower() == "websocket" and "upgrade" in tokens

    @property
    def token(self) -> str | None:
        """The bearer token, if it has one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if scheme.lower() == "bearer" else None


def read_head(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """Raises Refused for what h11 lets pass and we do not."""
    fields: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        if name in fields and name in ("authorization", "host", "origin", "content-length"):
            raise Refused(400, CspError("bad-request", f"header: {name}: given twice"))
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if "content-length" in fields and "transfer-encoding" in fields:
        # a proxy in front of us may believe the other one of the two, and see requests where we see a body
        raise Refused(400, CspError("bad-request", "header: content-length and transfer-encoding: give one of them"))
    try:
        parts = urlsplit(target.decode("ascii"))
        pairs = parse_qsl(
            parts.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, encoding="utf-8", errors="strict"
        )
    except ValueError as exc:
        raise Refused(400, CspError("bad-request", f"target: {target[:80]!r}: cannot be read: {exc}")) from exc
    if target != b"*" and not (parts.path.startswith("/") and not parts.netloc):
        raise Refused(400, CspError("bad-request", f"target: {target[:80]!r}: expected a path"))
    return Head(method.decode("ascii"), parts.path, dict(pairs), fields)


def check_names(head: Head, ours: str, allowed: Collection[str]) -> None:
    """`ours` is the address that the connection came to, `allowed` further names. Raises Refused."""
    host = head.headers.get("host", "")
    if not is_ours(_name(f"//{host}"), ours, allowed):
        hint = "ask by address, or add the name to gateway.allowed_hosts in cspd.toml"
        raise Refused(421, CspError("bad-host", f"host: {host[:80]!r}: not a name of this gateway", hint))
    origin = head.headers.get("origin")
    if origin is not None and not is_ours(_name(origin), ours, allowed):
        hint = "pages of other sites may not ask; add the name to gateway.allowed_hosts in cspd.toml"
        raise Refused(403, CspError("bad-origin", f"origin: {origin[:80]!r}: not a name of this gateway", hint))


def _name(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for what is none
        return (parts.hostname or "").rstrip(".") if parts.path in ("", "/") and not parts.username else ""
    except ValueError:
        return ""


def is_ours(name: str, ours: str, allowed: Collection[str]) -> bool:
    """Is `name` (lower-case) one by which we may be asked?"""
    if name in allowed:
        return True
    here = ip_address(ours.partition("%")[0])
    here = getattr(here, "ipv4_mapped", None) or here  # of a listener on [::]
    if here.is_loopback and name in LOOPBACK_NAMES:
        return True
    try:
        # An address is no name that somebody else's DNS could have pointed at us.
        asked = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return asked == here or (asked.is_loopback and here.is_loopback)
