"""The bytes that give a person's terminal back: every mode that an agent may have switched on is off again.

A constant shared by the sidecar (before a repaint) and cspctl (at detach). What is switched on is repaint's
affair.
"""

RESET_PARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x18\x1b\\", "CAN and ST end a sequence that was cut in the middle"),
    (b"\x1b[?2026l", "synchronised output off first: until then some terminals show nothing"),
    (b"\x1b[<64u", "kitty keyboard flags of the alternate screen: each screen has a stack of its own"),
    # 1049 restores the cursor even when the alternate screen is not shown, so where there is nothing to
    # restore it would jump home: save it first. On the alternate screen this goes to that screen's own slot.
    (b"\x1b7\x1b[?1049l", "back to the primary screen"),
    (b"\x1b[<64u", "kitty keyboard flags of the primary screen"),
    (b"\x1b[>4m", "modifyOtherKeys as the person configured it"),
    (b"\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l", "mouse reports off"),
    (b"\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l", "and their formats"),
    (b"\x1b[?1004l\x1b[?2004l\x1b[?5522l", "focus reports, bracketed paste, paste events off"),
    (b"\x1b[?2031l\x1b[?2048l\x1b[?2027l", "colour scheme and size reports, grapheme clusters off"),
    (b"\x1b[?1l\x1b>\x1b[?66l", "cursor keys and keypad send their normal codes"),
    (b"\x1b[2l\x1b[4l\x1b[12h\x1b[20l", "keyboard unlocked, no insert mode, no local echo, plain line feeds"),
    (b"\x1b[?5l\x1b[?45l\x1b[?7h", "no reverse video, no reverse wrap, autowrap on"),
    (b"\x1b[?6l\x1b[?69l\x1b[r", "no origin mode, no margins, the region is the whole screen"),
    (b"\x1b[?5W", "a tab stop every eight columns"),
    (b"\x1b(B\x1b)B\x0f", "ASCII in both character sets"),
    (b'\x1b[m\x1b[0"q\x1b]8;;\x1b\\', "default pen, unprotected, no hyperlink"),
    (b"\x1b[?12l\x1b[0 q\x1b[?25h", "the person's own cursor shape, visible"),
    # Origin mode and the region move the cursor home: below the text is where a shell's prompt overwrites
    # nothing.
    (b"\x1b[9999;1H", "cursor to the beginning of the last line"),
)
RESET: bytes = b"".join(part for part, _why in RESET_PARTS)
"""Brings any terminal back to sane modes without clearing text. The cursor ends on the last line, first
column."""
