"""Decides whether typed bytes are the person's detach key, in every encoding that terminals give it.

Pure. What to do about it, and where the bytes come from, is `attach`'s business.
"""

import re
from enum import Enum
from typing import NamedTuple

from cspd.errors import CspError

_PASTE_BEGIN = b"\x1b[200~"
_PASTE_END = b"\x1b[201~"
_LONGEST = 256  # a longer chunk is no key press, and need not be searched

# CSI code[:shifted[:base layout]] [; modifiers[:event] [; text]] u      (kitty keyboard protocol)
_KITTY = re.compile(rb"\x1b\[(\d+)(?::(\d*))?(?::(\d*))?(?:;(\d*)(?::(\d*))?(?:;[\d:]*)?)?u")
# CSI 27 ; modifiers ; code ~      (xterm's modifyOtherKeys)
_XTERM = re.compile(rb"\x1b\[27;(\d+);(\d+)~")

_LETTERS = re.compile(rb"[\x20-\x7e\x80-\xff]{1,64}")
# Ordinary typing: printable characters, Enter, Tab, Backspace. A run of all byte values is none.
_TYPED_BEFORE = re.compile(rb"[\r\n\t\x7f\x20-\x7e\x80-\xff]*")
_TYPED_MAX = 64

_SHIFT, _CTRL = 1, 4
_LOCKS = 64 | 128  # caps lock and num lock are modifiers too; they do not make another key of it
_RELEASE = 3

# On the keyboards where `]` needs a third hand, Ctrl-5 has always sent the same byte as Ctrl-], and so on.
_ALSO = {"@": " 2", "\\": "4", "]": "5", "^": "6", "_": "7/"}


class Verdict(Enum):
    PASS = "the program's"
    DETACH = "the detach key was pressed"
    SWALLOW = "the key was only let go; the program never saw it pressed"


class DetachKey(NamedTuple):
    """Ctrl with one key: `name` for people (`^]`), the byte of old, the key codes of the new protocols."""

    name: str
    byte: int
    codes: frozenset[int]


def parse(text: str) -> DetachKey | None:
    """The key that `^X` names (case does not matter), None for `none`; raises CspError("usage")."""
    if text.lower() == "none":
        return None
    letter = text[1:].upper()
    if len(text) != 2 or text[0] != "^" or not text.isascii() or not "@" <= letter <= "_" or letter == "[":
        # ^[ is Escape: a key that every program needs, and the first byte of all the others
        raise CspError(
            "usage",
            f"detach key: {text!r}: not a key for it",
            "^] or another of ^@ ^A to ^Z ^\\ ^^ ^_, or none",
        )
    same = letter + letter.lower() + _ALSO.get(letter, "")
    return DetachKey(f"^{letter}", ord(letter) & 0x1F, frozenset(map(ord, same)))


class KeyWatch:
    """Judges chunk after chunk of typed bytes, each as one read of the terminal gave it.

    The key counts when the chunk is nothing but the key (once, held down, or pressed again), or ends with it behind
    some ordinary typing that came in the same read: a person's press. Other data, a paste above all, may contain the
    byte and passes untouched; a bracketed paste even when a read happens to cut it just there.
    """

    def __init__(self, key: DetachKey | None) -> None:
        self._key = key
        self._pasting = False
        self._tail = b""

    def judge(self, chunk: bytes) -> Verdict:
        if _LETTERS.fullmatch(chunk) and b"\x1b" not in self._tail:
            return Verdict.PASS  # nearly every key: neither the detach key nor a part of a mark
        pasting = self._pasting
        self._follow_paste(chunk)
        if self._key is None or pasting or self._pasting or len(chunk) > _LONGEST:
            return Verdict.PASS
        typed = _TYPED_BEFORE.match(chunk)
        behind = chunk[typed.end() :] if typed and typed.end() <= _TYPED_MAX else chunk
        verdict = _only_the_key(self._key, behind)
        return verdict if behind is chunk or verdict is Verdict.DETACH else Verdict.PASS

    def before(self, chunk: bytes) -> bytes:
        """What was typed before the key, in a chunk that was judged DETACH."""
        found = _TYPED_BEFORE.match(chunk)
        return found[0] if found else b""

    def _follow_paste(self, chunk: bytes) -> None:
        seen = self._tail + chunk  # a mark may be cut anywhere; five bytes hold the most of one, never a whole one
        begun, ended = seen.rfind(_PASTE_BEGIN), seen.rfind(_PASTE_END)
        if begun != ended:
            self._pasting = begun > ended
        self._tail = seen[-(len(_PASTE_END) - 1) :]


def _only_the_key(key: DetachKey, chunk: bytes) -> Verdict:
    at, verdict = 0, Verdict.SWALLOW
    while at < len(chunk):
        if chunk[at] == key.byte:
            at, verdict = at + 1, Verdict.DETACH
        elif (found := _KITTY.match(chunk, at)) and _is_kitty(key, found):
            at = found.end()
            if _number(found[5], 1) != _RELEASE:
                verdict = Verdict.DETACH
        elif (found := _XTERM.match(chunk, at)) and _is_held(found[1], _CTRL) and int(found[2]) in key.codes:
            at, verdict = found.end(), Verdict.DETACH
        else:
            return Verdict.PASS
    return verdict if chunk else Verdict.PASS


def _is_kitty(key: DetachKey, found: re.Match[bytes]) -> bool:
    code, shifted, base = (_number(found[group], -1) for group in (1, 2, 3))
    if _is_held(found[4], _CTRL):
        return code in key.codes or base in key.codes  # base: the same place on a keyboard of another script
    return _is_held(found[4], _CTRL | _SHIFT) and shifted in key.codes


def _is_held(field: bytes | None, wanted: int) -> bool:
    return (_number(field, 1) - 1) & ~_LOCKS == wanted


def _number(field: bytes | None, absent: int) -> int:
    return int(field) if field else absent
