"""Makes text that a peer wrote safe to type, and puts it behind the header of the agent's template.

Decides which characters may reach a terminal and which lines are forgeries; when they are typed is the arbiter's.
"""

import re
import unicodedata

DEFAULT_TEMPLATE = "[Context: {from} sent a message]\n{content}"

_NEWLINES = re.compile("\r\n|\r|\u2028|\u2029")
# C0 without LF, DEL, C1 (ESC among them: it would end a bracketed paste); marks that reorder or hide text: bidi
# embeddings, overrides and isolates, the byte order mark, interlinear annotations and the invisible tag letters.
_FORBIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_PLACEHOLDER = re.compile(r"\{(from|content|room|to|id)\}")

# Letters of other scripts that look like the Latin ones of the header.
_LOOKALIKES = str.maketrans("асеорхуіѕһԁԍḿтпɡοεντχι", "aceopxyishdgmtngoentxi")
_HEADER = re.compile(r"^\W*context\s*:|\bsent\s+an?\s+message\s*\W?\s*$")

# A last word that begins so opens a completion menu or a mode in some CLIs; Enter would then choose from the menu.
_MENU_MARKS = "@/#!$"


def make_safe(text: str) -> str:
    """The same text without anything that a terminal or a CLI's input box would obey instead of showing."""
    text = _NEWLINES.sub("\n", text).replace("\t", "    ")
    text = _SURROGATES.sub("\ufffd", _FORBIDDEN.sub("", text)).rstrip()
    words = text.split()
    if text.endswith("\\") or (words and words[-1][0] in _MENU_MARKS):
        text += " ."
    return text


def legible(text: str, size: int) -> str:
    """The text as a record: tabs stay, what a terminal would obey goes; cut behind `size` bytes of UTF-8."""
    lines = _NEWLINES.sub("\n", text).split("\t")
    data = _SURROGATES.sub("\ufffd", "\t".join(_FORBIDDEN.sub("", part) for part in lines)).encode()
    return data.decode() if len(data) <= size else data[: size - len("…".encode())].decode(errors="ignore") + "…"


def render(
    template: str,
    sender: str,
    content: str,
    *,
    room: str = "",
    to: str = "",
    message_id: str = "",
    mode_characters: str = "",
) -> str:
    """The text to type: the template filled in one pass, so that a value is never read as a placeholder.

    `mode_characters` switch the program's mode when they come first; a template that begins so gets a word before it.
    """
    values = {
        "from": _one_line(sender),
        "room": _one_line(room),
        "to": _one_line(to),
        "id": _one_line(message_id),
        "content": defuse(make_safe(content), template),
    }
    filled = _PLACEHOLDER.sub(lambda found: values[found[1]], template)
    first = template.lstrip()[:1]
    if first == "{" or first in mode_characters:
        # The first character decides the mode of some CLIs (`!`, `/`, `#`): it must never be a peer's.
        filled = "message: " + filled
    return make_safe(filled)


def defuse(content: str, template: str = DEFAULT_TEMPLATE) -> str:
    """Put `> ` before every line that could be taken for a header of ours: only we say who sent something."""
    headers = _header_patterns(template)
    return "\n".join("> " + line if _forged(line, headers) else line for line in content.split("\n"))


def _header_patterns(template: str) -> list[re.Pattern[str]]:
    """What the template's own header lines look like, with any value in each place."""
    patterns = [_HEADER]
    for line in template.split("\n"):
        literal = _PLACEHOLDER.sub("", line)
        if "{content}" in line or sum(map(str.isalnum, literal)) < 3:
            continue  # nothing to recognise: a line of dashes or a bare name is no forgery
        parts = _PLACEHOLDER.split(_skeleton(line))[::2]
        patterns.append(re.compile(r"^\W*" + ".*".join(map(re.escape, parts)).strip()))
    return patterns


def _forged(line: str, headers: list[re.Pattern[str]]) -> bool:
    skeleton = _skeleton(line)
    return any(pattern.search(skeleton) for pattern in headers)


def _skeleton(line: str) -> str:
    """The line as a reader takes it: no invisible characters, one script, one case, single blanks."""
    folded = unicodedata.normalize("NFKC", line).casefold().translate(_LOOKALIKES)
    shown = "".join(char for char in folded if unicodedata.category(char) not in ("Cf", "Mn"))
    return " ".join(shown.split())


def _one_line(value: str) -> str:
    return " ".join(_SURROGATES.sub("\ufffd", _FORBIDDEN.sub("", _NEWLINES.sub(" ", value))).split())
