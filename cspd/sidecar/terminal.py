"""One terminal emulator: parses what the agent prints, answers its queries, and tells what stands on the screen.

Only this module and cells.py import pyghostty; everything about its C interface (what each value's type is, what has to
be set again after a restore) stays here. How a screen is drawn anew is repaint.py's decision.
"""

from collections.abc import Iterator
from typing import Any

from pyghostty._ffi import check, ffi, lib, union_fn
from pyghostty.core import init_sized

from cspd.sidecar.cells import CellReader, Row, packed_rows, wrapped_rows

# The library counts scrollback in bytes as well as in lines, and its own limit (10 000 bytes) holds some 400
# lines. A cell takes 8 bytes: this is enough for 500 columns, and is only taken when it is needed.
_BYTES_PER_LINE = 4_000
# When there are too many lines it drops a page of them at once (measured: up to 1 140 lines of 40 columns).
PAGE_OF_LINES = 1_200
# Without a limit for the unfinished sequence a snapshot fails whenever output is cut inside one. Titles and
# hyperlinks are short, but a clipboard write (OSC 52) can be an image.
_CONTINUATION_LIMIT = 4_000_000
# What programs are told about colours that only the person's real terminal knows: light on dark.
_FOREGROUND, _BACKGROUND = (0xD8, 0xD8, 0xD8), (0x10, 0x10, 0x10)
# Likewise for its font.
_CELL_WIDTH, _CELL_HEIGHT = 8, 16
# DECSCUSR numbers of a blinking cursor; the steady one is the next. The hollow block cannot be asked for by a
# program: made the default, it tells "the person's own shape" from an explicit block.
_BLINKING_SHAPE = {
    lib.GHOSTTY_RENDER_STATE_CURSOR_VISUAL_STYLE_BLOCK: 1,
    lib.GHOSTTY_RENDER_STATE_CURSOR_VISUAL_STYLE_UNDERLINE: 3,
    lib.GHOSTTY_RENDER_STATE_CURSOR_VISUAL_STYLE_BAR: 5,
}
_SCREEN_EXTRAS = ("style", "hyperlink", "protection", "charsets")
# ghostty_terminal_get writes through the pointer without looking: a wrong type corrupts the heap. One table,
# no guessing.
_TYPES = {
    "cols": "uint16_t",
    "rows": "uint16_t",
    "cursor_x": "uint16_t",
    "cursor_y": "uint16_t",
    "cursor_pending_wrap": "bool",
    "cursor_visible": "bool",
    "active_screen": "GhosttyTerminalScreen",
    "kitty_keyboard_flags": "uint8_t",
    "scrollback_rows": "size_t",
    "title": "GhosttyString",
    "pwd": "GhosttyString",
    "vt_ground": "bool",
}
_KEYS = {name: getattr(lib, f"GHOSTTY_TERMINAL_DATA_{name.upper()}") for name in _TYPES}
_grid_ref = union_fn("ghostty_terminal_grid_ref", "GhosttyResult(*)(GhosttyTerminal, GhosttyPointS, GhosttyGridRef*)")


def _take(call: Any, *args: Any) -> bytes:
    """Copies and frees what one of the library's `*_alloc` functions hands out."""
    data, size = ffi.new("uint8_t**"), ffi.new("size_t*")
    check(call(*args, ffi.NULL, data, size), "alloc")
    try:
        return bytes(ffi.buffer(data[0], size[0]))
    finally:
        lib.ghostty_free(ffi.NULL, data[0], size[0])


class Terminal:
    """Owner of one emulator. Not thread-safe; nothing blocks. `close` frees it, and so does the garbage collector."""

    def __init__(self, columns: int, rows: int, scrollback_lines: int = 10_000) -> None:
        handle = ffi.new("GhosttyTerminal*")
        check(lib.ghostty_terminal_new(ffi.NULL, handle, columns, rows), "terminal")
        self._adopt(handle, scrollback_lines)

    @classmethod
    def restore(cls, data: bytes, scrollback_lines: int = 10_000) -> "Terminal":
        """The terminal that `snapshot` described."""
        decoder, handle = ffi.new("GhosttySnapshotDecoder*"), ffi.new("GhosttyTerminal*")
        buffer = ffi.from_buffer(data)
        check(lib.ghostty_snapshot_decoder_new_buf(ffi.NULL, decoder, buffer, len(data)), "decoder")
        try:
            check(lib.ghostty_snapshot_decoder_decode(decoder[0], handle), "snapshot")
        finally:
            lib.ghostty_snapshot_decoder_free(decoder[0])
        terminal = cls.__new__(cls)
        terminal._adopt(handle, scrollback_lines)
        return terminal

    def _adopt(self, handle: Any, scrollback_lines: int) -> None:
        self._handle = ffi.gc(handle[0], lib.ghostty_terminal_free)
        render = ffi.new("GhosttyRenderState*")
        check(lib.ghostty_render_state_new(ffi.NULL, render), "render state")
        self._render = ffi.gc(render[0], lib.ghostty_render_state_free)
        self._text = ffi.new("uint8_t[]", 65_536)
        self.scrollback_lines = scrollback_lines
        self._replies: list[bytes] = []
        self._configure()

    def _configure(self) -> None:
        """None of this is part of a snapshot."""
        lines = self.scrollback_lines + PAGE_OF_LINES if self.scrollback_lines else 0
        self._set("scrollback_max_lines", ffi.new("size_t*", lines))
        self._set("scrollback_max_bytes", ffi.new("size_t*", lines * _BYTES_PER_LINE))
        self._set("continuation_max_bytes", ffi.new("size_t*", _CONTINUATION_LIMIT))
        self._set("default_cursor_style", ffi.new("int*", lib.GHOSTTY_TERMINAL_CURSOR_STYLE_BLOCK_HOLLOW))
        # An answer "yes, I draw images" would be given for a person's terminal that perhaps does not.
        self._set("kitty_image_storage_limit", ffi.new("uint64_t*", 0))
        for name, colour in (("foreground", _FOREGROUND), ("background", _BACKGROUND), ("cursor", _FOREGROUND)):
            self._set(f"color_{name}", ffi.new("GhosttyColorRgb*", colour))
        replies = self._replies  # the callbacks must not hold `self`: a cycle would delay the free

        def reply(_terminal: Any, _user: Any, data: Any, size: int) -> None:
            replies.append(bytes(ffi.buffer(data, size)))

        def size(terminal: Any, _user: Any, out: Any) -> bool:
            for field, key in (("columns", "cols"), ("rows", "rows")):
                value = ffi.new("uint16_t*")
                lib.ghostty_terminal_get(terminal, _KEYS[key], value)
                setattr(out, field, value[0])
            out.cell_width, out.cell_height = _CELL_WIDTH, _CELL_HEIGHT
            return True

        self._callbacks = (
            ffi.callback("GhosttyTerminalWritePtyFn", reply),
            ffi.callback("GhosttyTerminalSizeFn", size),
        )
        self._set("write_pty", self._callbacks[0])
        self._set("size", self._callbacks[1])

    def _set(self, option: str, value: Any) -> None:
        check(
            lib.ghostty_terminal_set(self._handle, getattr(lib, f"GHOSTTY_TERMINAL_OPT_{option.upper()}"), value),
            option,
        )

    def _get(self, name: str) -> Any:
        out = ffi.new(_TYPES[name] + "*")
        check(lib.ghostty_terminal_get(self._handle, _KEYS[name], out), name)
        return out[0]

    def _string(self, name: str) -> str:
        value = self._get(name)  # the working directory carries a stray NUL
        return ffi.buffer(value.ptr, value.len)[:].decode("utf-8", "replace").rstrip("\0") if value.len else ""

    def feed(self, data: bytes) -> bytes:
        """Parses output; returns what the program's queries in it (and a resize before it) ask to be told."""
        lib.ghostty_terminal_vt_write(self._handle, data, len(data))
        replies = b"".join(self._replies)
        self._replies.clear()
        return replies

    def resize(self, columns: int, rows: int) -> None:
        check(lib.ghostty_terminal_resize(self._handle, columns, rows, _CELL_WIDTH, _CELL_HEIGHT), "resize")

    def snapshot(self) -> bytes:
        """Everything, scrollback and an unfinished sequence included, for `restore`."""
        return _take(lib.ghostty_snapshot_encode_alloc, self._handle)

    def clone(self, scrollback_lines: int | None = None) -> "Terminal":
        return Terminal.restore(
            self.snapshot(), self.scrollback_lines if scrollback_lines is None else scrollback_lines
        )

    def close(self) -> None:
        """Frees the emulator now. The object must not be used afterwards; closing twice is allowed."""
        if self._handle:
            ffi.release(self._render)
            ffi.release(self._handle)
        self._handle = self._render = ffi.NULL  # a call after this gets an error, not freed memory

    @property
    def columns(self) -> int:
        return int(self._get("cols"))

    @property
    def rows(self) -> int:
        return int(self._get("rows"))

    @property
    def cursor(self) -> tuple[int, int]:
        """(row, column), 0-based, on the visible screen."""
        return int(self._get("cursor_y")), int(self._get("cursor_x"))

    @property
    def pending_wrap(self) -> bool:
        """The last column was printed; the next character goes to the next row."""
        return bool(self._get("cursor_pending_wrap"))

    @property
    def cursor_visible(self) -> bool:
        return bool(self._get("cursor_visible"))

    @property
    def cursor_shape(self) -> int:
        """The DECSCUSR number; 0 when the program has not asked for one."""
        self._render_state()
        shape, blinking = ffi.new("GhosttyRenderStateCursorVisualStyle*"), ffi.new("bool*")
        self._render_get("CURSOR_VISUAL_STYLE", shape)
        self._render_get("CURSOR_BLINKING", blinking)
        number = _BLINKING_SHAPE.get(shape[0])
        return 0 if number is None else number + (not blinking[0])

    @property
    def alternate(self) -> bool:
        return bool(self._get("active_screen") == lib.GHOSTTY_TERMINAL_SCREEN_ALTERNATE)

    @property
    def title(self) -> str:
        return self._string("title")

    @property
    def pwd(self) -> str:
        """The working directory as the program reported it (OSC 7), a file: URL."""
        return self._string("pwd")

    @property
    def kitty_flags(self) -> int:
        return int(self._get("kitty_keyboard_flags"))

    @property
    def scrollback_rows(self) -> int:
        return int(self._get("scrollback_rows"))

    @property
    def ground(self) -> bool:
        """The parser is between sequences and between the bytes of a character."""
        return bool(self._get("vt_ground"))

    def pending(self) -> bytes:
        """The bytes that bring a parser in ground state to where this one is."""
        return b"" if self.ground else _take(lib.ghostty_terminal_continuation_alloc, self._handle)

    def mode(self, number: int, ansi: bool = False) -> bool:
        """Whether a DEC private (or ANSI) mode is set; False for one that the emulator does not know."""
        query = ffi.new("GhosttyTerminalModeConfig*")
        query.mode = (number & 0x7FFF) | (ansi << 15)
        return lib.ghostty_terminal_get(self._handle, lib.GHOSTTY_TERMINAL_DATA_MODE, query) == 0 and bool(query.value)

    def screen_lines(self) -> list[str]:
        """The visible rows as text without trailing blanks. Measured: 0.03 ms at 120x40."""
        lines = self._plain(self._selection("active", 0, self.rows - 1), unwrap=False).split("\n")
        return [line.rstrip() for line in lines] + [""] * (self.rows - len(lines))

    def wrapped(self) -> list[bool]:
        """Per visible row: it goes on in the next one."""
        self._render_state()
        return wrapped_rows(self._render)

    def history_lines(self) -> list[str]:
        """Scrollback and screen as logical lines. The alternate screen has no scrollback of its own."""
        lines, first, last = list[str](), 0, self.scrollback_rows + self.rows - 1
        for end in [*self._stale_wraps(last), last]:
            text = self._plain(self._selection("screen", first, end), unwrap=True)
            lines += [line.rstrip() for line in text.split("\n")]
            first = end + 1
        return lines if any(lines) else []

    def _ref(self, tag: str, x: int, y: int) -> Any:
        point, ref = ffi.new("GhosttyPointS*"), init_sized("GhosttyGridRef")
        point.tag, point.value.x, point.value.y = getattr(lib, f"GHOSTTY_POINT_TAG_{tag.upper()}"), x, y
        check(_grid_ref(self._handle, point[0], ref), "grid reference")
        return ref

    def _selection(self, tag: str, first: int, last: int) -> Any:
        """Whole rows of the visible screen ("active"), of the scrollback ("history") or of both ("screen")."""
        selection = init_sized("GhosttySelection")
        selection.start = self._ref(tag, 0, first)[0]
        end, wide, _ = self._corner(tag, last)
        if wide == lib.GHOSTTY_CELL_WIDE_SPACER_HEAD:  # the wide character of the next row would come with it
            end.x -= 1
        selection.end = end[0]
        return selection

    def _corner(self, tag: str, row: int) -> tuple[Any, int, bool]:
        """The last cell of a row: a reference, its kind of width, and whether it (or the wide one before)
        has text."""
        ref = self._ref(tag, self.columns - 1, row)
        cell, wide, has_text = ffi.new("GhosttyCell*"), ffi.new("GhosttyCellWide*"), ffi.new("bool*")
        check(lib.ghostty_grid_ref_cell(ref, cell), "cell")
        check(lib.ghostty_cell_get(cell[0], lib.GHOSTTY_CELL_DATA_WIDE, wide), "width")
        check(lib.ghostty_cell_get(cell[0], lib.GHOSTTY_CELL_DATA_HAS_TEXT, has_text), "text")
        return ref, wide[0], bool(has_text[0]) or wide[0] == lib.GHOSTTY_CELL_WIDE_SPACER_TAIL

    def _plain(self, selection: Any, *, unwrap: bool) -> str:
        options, size = init_sized("GhosttyTerminalSelectionFormatOptions"), ffi.new("size_t*")
        options.emit, options.unwrap, options.trim = lib.GHOSTTY_FORMATTER_FORMAT_PLAIN, unwrap, True
        options.selection = selection
        call = lib.ghostty_terminal_selection_format_buf
        result = call(self._handle, options[0], self._text, len(self._text), size)
        if result == lib.GHOSTTY_OUT_OF_SPACE:  # formatting twice is what this buffer saves; it only ever grows
            self._text = ffi.new("uint8_t[]", size[0] * 2)
            result = call(self._handle, options[0], self._text, len(self._text), size)
        check(result, "text")
        return bytes(ffi.buffer(self._text, size[0])).decode("utf-8", "replace")

    def history_vt(self) -> bytes:
        """The scrollback as styled output, a newline after every line. Soft wraps are left to the terminal that shows
        it, so there is no newline at the end when `history_wraps`."""
        first, out, rows = 0, list[bytes](), self.scrollback_rows
        for last in self._stale_wraps(rows):
            out.append(self._lines_vt(first, last) + b"\r\n")
            first = last + 1
        if first < rows:
            out.append(self._lines_vt(first, rows - 1))
            out.append(self._to_last_column(rows - 1) if self.history_wraps else b"\r\n")
        return b"".join(out)

    @property
    def history_wraps(self) -> bool:
        """The last row of the scrollback goes on in the first visible one."""
        row, wrap, rows = ffi.new("GhosttyRow*"), ffi.new("bool*"), self.scrollback_rows
        if not rows:
            return False
        check(lib.ghostty_grid_ref_row(self._ref("history", 0, rows - 1), row), "row")
        check(lib.ghostty_row_get(row[0], lib.GHOSTTY_ROW_DATA_WRAP, wrap), "wrap")
        return bool(wrap[0]) and rows - 1 not in self._stale_wraps(rows)

    def _stale_wraps(self, rows: int) -> list[int]:
        """Which of the first rows, scrollback first, wrapped into one that was erased since: the formatter would join
        the two, or leave an empty one out."""
        point, ref = ffi.new("GhosttyPointS*"), init_sized("GhosttyGridRef")
        row, cell, flag = ffi.new("GhosttyRow*"), ffi.new("GhosttyCell*"), ffi.new("bool*")
        point.tag = lib.GHOSTTY_POINT_TAG_SCREEN
        wrapped, stale = False, []
        for y in range(rows + 1 if rows else 0):
            point.value.y = y
            check(_grid_ref(self._handle, point[0], ref), "grid reference")
            lib.ghostty_grid_ref_row(ref, row)
            if wrapped:
                lib.ghostty_row_get(row[0], lib.GHOSTTY_ROW_DATA_WRAP_CONTINUATION, flag)
                goes_on = flag[0]
                lib.ghostty_grid_ref_cell(ref, cell)
                lib.ghostty_cell_get(cell[0], lib.GHOSTTY_CELL_DATA_HAS_TEXT, flag)
                if not (goes_on and flag[0]):
                    stale.append(y - 1)
            lib.ghostty_row_get(row[0], lib.GHOSTTY_ROW_DATA_WRAP, flag)
            wrapped = flag[0]
        return stale

    def _lines_vt(self, first: int, last: int) -> bytes:
        blank = self._blank_tail(first, last)
        if blank > last - first:
            return b"\r\n" * (blank - 1)
        return self._format(self._selection("history", first, last - blank)) + b"\x1b[m" + b"\r\n" * blank

    def _to_last_column(self, row: int) -> bytes:
        """Blanks at the end of a row may have been left out, but the next character wraps only from the last column."""
        _, wide, has_text = self._corner("history", row)
        gap = wide == lib.GHOSTTY_CELL_WIDE_SPACER_HEAD
        return b"" if has_text else b"\x1b[%dG" % self.columns + b" " * (not gap)

    def _blank_tail(self, first: int, last: int) -> int:
        """How many rows at the end of this part of the scrollback the formatter would leave out because nothing stands
        in them. Looks at 1, 2, 4... of them and then halves, so that the usual answer, none, costs
        nothing."""

        def blank(count: int) -> bool:
            return not self._format(self._selection("history", last + 1 - count, last))

        rows, low, high = last + 1 - first, 0, 1
        while high <= rows and blank(high):
            low, high = high, high * 2
        high = min(high, rows + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if blank(middle) else (low, middle)
        return low

    def extra(self, name: str) -> bytes:
        """The sequences that bring about one part of the state which has no query of its own: the
        formatter's output with that part, less its output without. Names: style, hyperlink, protection,
        charsets (of the cursor); scrolling_region, tabstops, keyboard (modifyOtherKeys)."""
        corner = init_sized("GhosttySelection")
        corner.start = corner.end = self._ref("active", 0, 0)[0]
        plain, whole = self._format(corner), self._format(corner, name)
        return whole.removesuffix(plain) if name == "tabstops" else whole.removeprefix(plain)

    def _format(self, selection: Any, extra: str = "") -> bytes:
        options, formatter = init_sized("GhosttyFormatterTerminalOptions"), ffi.new("GhosttyFormatter*")
        options.emit, options.unwrap, options.trim = lib.GHOSTTY_FORMATTER_FORMAT_VT, True, False
        options.selection = selection
        if extra in _SCREEN_EXTRAS:
            setattr(options.extra.screen, extra, True)
        elif extra:
            setattr(options.extra, extra, True)
        check(lib.ghostty_formatter_terminal_new(ffi.NULL, formatter, self._handle, options[0]), "formatter")
        try:
            return _take(lib.ghostty_formatter_format_alloc, formatter[0])
        finally:
            lib.ghostty_formatter_free(formatter[0])

    def read_rows(self) -> list[Row]:
        """Every cell of the visible screen."""
        reader, found = CellReader(), enumerate(self._packed_rows())
        return [Row(reader.read(self._ref("active", 0, y), raw), wrap) for y, (wrap, raw) in found]

    def _packed_rows(self) -> Iterator[tuple[bool, list[int]]]:
        self._render_state()
        return packed_rows(self._render)

    def _render_state(self) -> None:
        check(lib.ghostty_render_state_update(self._render, self._handle), "render state")

    def _render_get(self, name: str, out: Any) -> None:
        key = getattr(lib, f"GHOSTTY_RENDER_STATE_DATA_{name}")
        check(lib.ghostty_render_state_get(self._render, key, out), name)
