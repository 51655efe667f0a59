"""What a profile says: how to tell what a program is doing, how one types into it, how its hooks are wired.

Values only. They are read from TOML by `read`, found by `find`, and judged by the sidecar's pure modules.
"""

import enum
import re
from collections.abc import Mapping
from typing import Any

import attrs


class Activity(enum.Enum):
    """What an agent is doing, as far as it can be seen."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DIALOG = "dialog"
    UNKNOWN = "unknown"


class Region(enum.Enum):
    """Where a rule looks."""

    NONE = "none"  # facts of the tty only (`when`)
    SCREEN = "screen"
    BOTTOM = "bottom"  # the lowest `rows` rows, counted from the last one that shows something
    ABOVE_BOX = "above-box"  # the `rows` rows before the input box
    BELOW_BOX = "below-box"  # the `rows` rows behind it
    CURSOR_ROW = "cursor-row"
    BEFORE_CURSOR = "before-cursor"  # the line up to the cursor, joined over soft wraps
    TITLE = "title"


class Hook(enum.Enum):
    """What an event of the program's own hooks means."""

    PROMPT = "prompt"  # it took a prompt: a turn begins
    TOOL = "tool"  # it works
    DIALOG = "dialog"  # it asks the person
    END = "end"  # the turn is over
    NOTE = "note"  # worth reporting, says nothing of its activity


class Keywords(enum.Enum):
    """Where a line that names somebody is heard."""

    LINES = "lines"  # in new lines of the terminal: a line-oriented program
    ANSWER = "answer"  # in the answers that its hooks tell: the screen would not give them back whole


@attrs.frozen
class When:
    """Facts of the tty that a rule asks for; None asks for nothing."""

    bracketed_paste: bool | None = None
    alternate: bool | None = None
    canonical: bool | None = None
    echo: bool | None = None
    foreground: bool | None = None
    reading: bool | None = None  # true is also satisfied by "not known": not every kernel tells
    box: bool | None = None  # the input box is on the screen


@attrs.frozen
class Rule:
    """One vote. All `match` patterns must be found (each on some line of the region), no `unless` pattern may be."""

    name: str
    activity: Activity
    kind: str = ""  # of a dialog: password, choice, confirm, continue
    priority: int = 50
    region: Region = Region.NONE
    rows: int = 30
    match: tuple[re.Pattern[str], ...] = ()
    unless: tuple[re.Pattern[str], ...] = ()
    silence_sec: float = 0.0
    when: When = When()


@attrs.frozen
class Typing:
    """How one types into this program."""

    human_quiet_sec: float = 2.0  # no key of a person for so long
    settle_sec: float = 0.2  # between the echo and Enter
    echo_timeout_sec: float = 5.0
    retry_sec: float = 1.2  # Enter again when the text still stands in the box
    enters: int = 3  # so many in all
    pause_sec: float = 2.0  # a person's keys wait no longer
    proof: str = "gone"  # submitted when the text has left the input; "turn": and a turn was seen to begin
    when_busy: str = "hold"  # "type": the program queues what it gets while busy; "queue": so does queue_key
    queue_key: str = ""  # instead of Enter while busy
    interrupt_key: str = ""  # ends a turn for an urgent message; "" = an urgent message waits, too
    batch_messages: int = 1  # so many that wait become one turn
    mode_characters: str = "!/#@?&$"  # as the first character they switch the program's mode
    placeholders: tuple[re.Pattern[str], ...] = ()  # what a long paste is shown as


@attrs.frozen
class Box:
    """Where the input stands on the screen."""

    prompt: re.Pattern[str] = re.compile(r"^[\s│┃|▌]*[>❯›](?=\s|$)")  # first row of a box: the lowest that matches
    end: re.Pattern[str] = re.compile(r"^\s*$|^\s*[─━═▄▀╰└╯┘]{3}")  # the row behind its last
    top: re.Pattern[str] | None = None  # the row before its first; None = anything
    cursor: bool = False  # the cursor always stands in it: a prompt without the cursor is not the box
    empty: tuple[re.Pattern[str], ...] = ()  # what an empty box shows
    prompt_end: re.Pattern[str] = re.compile(
        r"(>>>|^\.\.\.|[>❯›»➜λ$#%])\s*$"
    )  # the line before the cursor, nothing typed


@attrs.frozen
class WiringFile:
    """A file made for one agent, or, `shared`, for all that have the profile.

    `content` is written as JSON: strings in it may hold placeholders; the string "{hooks}" is the hook table, "{mcp}"
    the MCP server. `text` is written as it is, but for placeholders.
    """

    name: str
    content: Mapping[str, Any] = attrs.field(factory=dict)
    text: str = ""
    shared: bool = False


@attrs.frozen
class Once:
    """What the person must do once, because nobody may do it for them."""

    command: str = ""
    sign: str = ""  # a path that is there when it was done


@attrs.frozen
class Wiring:
    """What is added to the person's command, so that the program's hooks reach us and it has our tools.

    Its own files are left alone.
    """

    arguments: tuple[str, ...] = ()  # behind the command's own
    environment: Mapping[str, str] = attrs.field(factory=dict)
    files: tuple[WiringFile, ...] = ()
    unless: tuple[str, ...] = ()  # words of the command with which nothing is added: they ask for the same thing
    hook_group: Mapping[str, Any] = attrs.field(factory=dict)  # fields of each event's group
    hook_handler: Mapping[str, Any] = attrs.field(factory=dict)  # fields of each handler
    hook_option: str = ""  # give the table as overrides with this option (codex: "-c")
    mcp_server: Mapping[str, Any] = attrs.field(factory=dict)  # fields of the MCP server beside its command
    mcp_option: str = ""  # give the server as an override with this option (codex: "-c")
    once: Once = Once()


@attrs.frozen
class Profile:
    name: str
    rules: tuple[Rule, ...]  # highest priority first
    programs: tuple[str, ...] = ()  # file names of programs that it is for
    versions_tested: tuple[str, ...] = ()
    typing: Typing = Typing()
    box: Box = Box()
    hooks: Mapping[str, Hook] = attrs.field(factory=dict)  # by "EVENT" or "EVENT:SUBJECT"
    wiring: Wiring = Wiring()
    starting_sec: float = 10.0  # a blank screen means `starting` for so long
    keywords: Keywords = Keywords.LINES
    own_words_only: bool = False  # keywords in the output of its children are not heard: it is a shell
    poll_sec: float = 1.0  # what no output announces (who reads the tty) is looked at so often

    @property
    def hook_events(self) -> tuple[str, ...]:
        """The events that the program must report."""
        return tuple(dict.fromkeys(name.partition(":")[0] for name in self.hooks))

    def meaning(self, event: str, subject: str) -> Hook:
        """What this event means; what the profile does not name says nothing."""
        return self.hooks.get(f"{event}:{subject}", self.hooks.get(event, Hook.NOTE))
