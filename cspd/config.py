"""What a person may configure, with defaults and limits: agents/NAME.toml and cspd.toml.

Every value here is whole and checked once it exists. Reading and writing the files is left to `configfile`.
"""

import math
import re
import signal
import string
from collections.abc import Callable, Collection, Iterable
from pathlib import Path, PurePath
from typing import Any, Literal

import attrs

from cspd.errors import nearest
from cspd.paths import AGENT_NAME, RESERVED_NAMES

RestartPolicy = Literal["no", "on-success", "on-failure", "on-abnormal", "always"]
Introduce = Literal["tool", "message", "no"]
LogLevel = Literal["debug", "info", "warning", "error"]

# Shipped with CSP; a person adds more as profiles/*.toml.
BUILT_IN_PROFILES = frozenset({"claude", "gemini", "codex", "shell", "default"})
PROFILE_OF_PROGRAM = {
    "claude": "claude",
    "codex": "codex",
    "gemini": "gemini",
    **dict.fromkeys(("bash", "sh", "zsh", "fish"), "shell"),
}
MARKDOWN = "*_`~>|<"  # at the begin of a line they mean something else
PLACEHOLDERS = ("from", "content", "room", "to", "id")
SIGNAL_NAMES = tuple(s.name for s in signal.Signals)
DEFAULT_KEYWORD = "@{name}:"
KEYWORD_NAME = re.compile(r"[^\W_][\w.-]{0,31}")
DEFAULT_TEMPLATE = "[Context: {from} sent a message]\n{content}"
FD_NAME = re.compile(r"[!-9;-~]{1,255}")  # systemd's FileDescriptorName=: printable ASCII without a colon
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,252})", re.ASCII)
TCP_ADDRESS = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[^\s:\[\]/]+)):(?P<port>[0-9]{1,5})", re.ASCII
)

Validator = Callable[[Any, Any, Any], None]


class Invalid(ValueError):
    """One or more problems of a value; each is (key below the value or "", sentence)."""

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{key}: {sentence}" if key else sentence for key, sentence in problems))
        self.problems = problems


def shown(value: object) -> str:
    """The value as it stands in a sentence; a long one is cut, because it should not bury the sentence."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def with_hint(sentence: str, hint: str) -> str:
    return f"{sentence} ({hint})" if hint else sentence


def name_problem(name: str) -> str:
    """Why `name` cannot name an agent or a room; "" when it can."""
    if not AGENT_NAME.fullmatch(name):
        return f"got {shown(name)}, expected 1 to 32 of a-z 0-9 _ -, beginning with a letter or digit"
    if name in RESERVED_NAMES:
        return f"got {name!r}, but this word has a meaning of its own; choose another name"
    return ""


def refuse(sentence: str) -> None:
    """Raise for a sentence, pass for ""."""
    if sentence:
        raise Invalid(("", sentence))


def between(low: float, high: float = math.inf) -> Validator:
    """Accept low <= number <= high. Infinity and nan never pass, even where there is no upper limit."""
    expected = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:.15g}"

    def check(_instance: Any, _attribute: Any, value: float) -> None:
        if not math.isfinite(value) or not low <= value <= high:
            refuse(f"got {value!r}, expected {expected}")

    return check


def is_name(_instance: Any, _attribute: Any, value: str) -> None:
    refuse(name_problem(value))


def is_profile_name(_instance: Any, _attribute: Any, value: str) -> None:
    # "default" and friends need no protection: profile names are never addressed in `to`
    if not AGENT_NAME.fullmatch(value):
        refuse(name_problem(value))


def names_only(_instance: Any, _attribute: Any, value: dict[str, object]) -> None:
    problems = [(name, sentence) for name in value if (sentence := name_problem(name))]
    if problems:
        raise Invalid(*problems)


def is_command(_instance: Any, _attribute: Any, value: tuple[str, ...]) -> None:
    if not value or not value[0]:
        refuse(f"got {shown(list(value))}, expected a program and its arguments")
    if any("\0" in word for word in value):
        refuse(f"got {shown(list(value))}, but no argument can hold a NUL")


def is_environment(_instance: Any, _attribute: Any, value: dict[str, str]) -> None:
    problems = []
    for key, text in value.items():
        if not key or "=" in key or "\0" in key:
            problems.append((key, "not the name of an environment variable"))
        elif key.startswith("CSP_"):
            problems.append((key, "CSP sets this variable itself"))
        elif "\0" in text:
            problems.append((key, "no environment variable can hold a NUL"))
    if problems:
        raise Invalid(*problems)


def is_signal(_instance: Any, _attribute: Any, value: str) -> None:
    if value not in SIGNAL_NAMES:
        hint = nearest(value.upper(), SIGNAL_NAMES)
        refuse(with_hint(f"got {shown(value)}, expected the name of a signal", hint))


def is_absolute(_instance: Any, _attribute: Any, value: Path) -> None:
    if not value.is_absolute() or "\0" in str(value):
        refuse(f"got {shown(str(value))}, expected an absolute path or one below '~'")


def is_template(_instance: Any, _attribute: Any, value: str) -> None:
    try:
        parts = list(string.Formatter().parse(value))
    except ValueError as exc:
        raise Invalid(("", f"got {shown(value)}: {exc} (write {{{{ or }}}} for a brace itself)")) from exc
    fields = [name for _, name, _, _ in parts if name is not None]
    for _, name, spec, conversion in parts:
        # no {content!r}, {content:>9} or {content.x}: a template only places values, it does not compute
        if name is not None and (name not in PLACEHOLDERS or spec or conversion):
            known = ", ".join(f"{{{word}}}" for word in PLACEHOLDERS)
            whole = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            refuse(with_hint(f"unknown placeholder {{{whole}}}, known: {known}", nearest(name, PLACEHOLDERS)))
    if "content" not in fields:
        refuse(f"got {shown(value)}, expected {{content}} in it")


def is_keyword(_instance: Any, _attribute: Any, value: str) -> None:
    before, name, behind = value.partition("{name}")
    if not name or "{name}" in behind or len(value) > 64 or not value.isprintable():
        refuse(f"got {shown(value)}, expected a short text with {{name}} in it once, such as '@{{name}}:'")
    if not before.strip() or before != before.lstrip() or before[0] in MARKDOWN or not behind.strip():
        refuse(f"got {shown(value)}, expected a sign before {{name}} and one behind it, and none of {MARKDOWN} first")


def are_names(_instance: Any, _attribute: Any, value: dict[str, str]) -> None:
    problems = []
    for name, to in value.items():
        if not KEYWORD_NAME.fullmatch(name):
            problems.append((name, "expected a word of up to 32 letters, digits, _ - and ."))
        elif to not in ("all", "broadcast", "human") and (sentence := name_problem(to)):
            problems.append((name, sentence))
    if problems:
        raise Invalid(*problems)


def default_profile(command: Iterable[str], known: Collection[str] = BUILT_IN_PROFILES) -> str:
    """The profile for a program's file name; "default" for strangers and for profiles that do not exist."""
    program = PurePath(next(iter(command), "")).name
    profile = PROFILE_OF_PROGRAM.get(program, "default")
    return profile if profile in known else "default"


def expanded(text: str | Path) -> Path:
    """`~` and `~user` replaced; what cannot be replaced stays and is then refused as not absolute."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


@attrs.frozen
class Restart:
    """When an ended agent is started again, after which delay, and when CSP gives up."""

    policy: RestartPolicy = attrs.field(default="on-failure")
    delay_sec: float = attrs.field(default=1.0, validator=between(0))
    backoff_factor: float = attrs.field(default=2.0, validator=between(1))
    delay_max_sec: float = attrs.field(default=60.0, validator=between(0))
    limit_burst: int = attrs.field(default=5, validator=between(1))
    limit_interval_sec: float = attrs.field(default=60.0, validator=between(0))  # 0 = no start limit

    def __attrs_post_init__(self) -> None:
        if self.delay_max_sec < self.delay_sec:
            sentence = f"got {self.delay_max_sec!r}, expected delay_sec ({self.delay_sec!r}) or more"
            raise Invalid(("delay_max_sec", sentence))


@attrs.frozen
class Stop:
    """How an agent is ended: the signal, then SIGKILL to its whole session after the timeout."""

    signal: str = attrs.field(default="SIGTERM", validator=is_signal)
    timeout_sec: float = attrs.field(default=10.0, validator=between(0))


@attrs.frozen
class Deliver:
    """How a message is typed. `template` has the rules of str.format: {{ is a brace."""

    template: str = attrs.field(default=DEFAULT_TEMPLATE, validator=is_template)
    expire_sec: float = attrs.field(default=86400.0, validator=between(0))


@attrs.frozen
class Share:
    """What of this terminal the room hears."""

    input: bool = True
    keywords: bool = True
    keyword: str = attrs.field(default=DEFAULT_KEYWORD, validator=is_keyword)  # what a line begins with that is heard
    names: dict[str, str] = attrs.field(factory=dict, validator=are_names)  # further names, and whom they stand for


@attrs.frozen
class TerminalConfig:
    """The window size without an attached terminal, and how much scrollback is kept."""

    columns: int = attrs.field(default=120, validator=between(2, 1000))
    rows: int = attrs.field(default=40, validator=between(1, 1000))
    scrollback_lines: int = attrs.field(default=10_000, validator=between(0, 1_000_000))


@attrs.frozen
class Record:
    """Whether what the terminal shows is recorded, and how much of it is kept."""

    enabled: bool = False
    max_bytes: int = attrs.field(default=10_485_760, validator=between(65_536, 1 << 40))  # of one file, about
    keep_files: int = attrs.field(default=10, validator=between(1, 10_000))
    input: bool = False  # passwords that are typed are input, too


@attrs.frozen
class UnitConfig:
    """One agent. `name` comes from the file's name; `profile` follows from the command unless it is given."""

    name: str = attrs.field(validator=is_name)
    command: tuple[str, ...] = attrs.field(validator=is_command)
    profile: str = attrs.field(validator=is_profile_name)
    working_directory: Path = attrs.field(default=Path("~"), converter=expanded, validator=is_absolute)
    room: str = attrs.field(default="lobby", validator=is_name)
    autostart: bool = True
    introduce: Introduce = "tool"  # how it is told who else is in its room
    wire: bool = True  # add the profile's wiring to the command, so that the program's hooks reach us
    environment: dict[str, str] = attrs.field(factory=dict, validator=is_environment)
    restart: Restart = attrs.field(factory=Restart)
    stop: Stop = attrs.field(factory=Stop)
    deliver: Deliver = attrs.field(factory=Deliver)
    share: Share = attrs.field(factory=Share)
    terminal: TerminalConfig = attrs.field(factory=TerminalConfig)
    record: Record = attrs.field(factory=Record)

    @profile.default
    def _profile_of_command(self) -> str:
        return default_profile(self.command)

    def __attrs_post_init__(self) -> None:
        if self.introduce == "message" and self.profile == "shell":
            raise Invalid(("introduce", "got 'message', but a message to a shell is a command; give 'no' or 'tool'"))


@attrs.frozen
class TcpAddress:
    host: str
    port: int


@attrs.frozen
class InheritedSocket:
    """A listening socket that systemd passes under this name."""

    name: str


def parse_listen(text: str) -> TcpAddress | InheritedSocket | None:
    """Where the gateway listens; None = off. Raises Invalid."""
    if not text:
        return None
    if text.startswith("fd:") and FD_NAME.fullmatch(text[3:]):
        return InheritedSocket(text[3:])
    found = TCP_ADDRESS.fullmatch(text)
    if found and int(found["port"]) <= 65535:
        return TcpAddress(found["v6"] or found["host"], int(found["port"]))
    expected = "'127.0.0.1:8765', '[::1]:8765', 'fd:NAME' or '' for off"
    raise Invalid(("", f"got {shown(text)}, expected {expected}"))


def is_listen(_instance: Any, _attribute: Any, value: str) -> None:
    parse_listen(value)


def are_hosts(_instance: Any, _attribute: Any, value: tuple[str, ...]) -> None:
    for name in value:
        if not HOST_NAME.fullmatch(name):
            refuse(f"got {shown(name)}, expected a lower-case host name without a port")


@attrs.frozen
class GatewayConfig:
    """Where HTTP and WebSocket are served, by which names, and whether with TLS."""

    listen: str = attrs.field(default="127.0.0.1:8765", validator=is_listen)
    allowed_hosts: tuple[str, ...] = attrs.field(default=(), validator=are_hosts)
    tls_certificate: str = ""
    tls_key: str = ""

    def __attrs_post_init__(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            missing = "tls_key" if self.tls_certificate else "tls_certificate"
            raise Invalid((missing, "missing, but the other one of certificate and key is there"))

    @property
    def address(self) -> TcpAddress | InheritedSocket | None:
        return parse_listen(self.listen)


@attrs.frozen
class HistoryConfig:
    keep_days: int = attrs.field(default=0, validator=between(0))  # 0 = for ever


@attrs.frozen
class LogConfig:
    level: LogLevel = "info"


@attrs.frozen
class LoopGuardConfig:
    """How much agents may say to each other before a person is asked."""

    max_hops: int = attrs.field(default=12, validator=between(1))
    max_messages: int = attrs.field(default=60, validator=between(1))
    pair_per_min: int = attrs.field(default=20, validator=between(1))
    agent_per_min: int = attrs.field(default=30, validator=between(1))
    room_per_min: int = attrs.field(default=120, validator=between(1))
    notify: bool = True  # also the terminals that are attached, by OSC 9


@attrs.frozen
class RoomConfig:
    topic: str = ""


@attrs.frozen
class DaemonConfig:
    """cspd.toml; every key is optional."""

    gateway: GatewayConfig = attrs.field(factory=GatewayConfig)
    history: HistoryConfig = attrs.field(factory=HistoryConfig)
    log: LogConfig = attrs.field(factory=LogConfig)
    loop_guard: LoopGuardConfig = attrs.field(factory=LoopGuardConfig)
    rooms: dict[str, RoomConfig] = attrs.field(factory=dict, validator=names_only)
