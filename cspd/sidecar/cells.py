"""One cell of the emulator's screen: unpacks what the library packs into 64 bits and the tables beside it.

The other half of terminal.py's C interface, which is its only user; plain values come out.
"""

from collections.abc import Iterator
from typing import Any

import attrs
from pyghostty._ffi import check, ffi, lib
from pyghostty.core import init_sized

_CELL_FIELDS = {
    "codepoint": "uint32_t",
    "content_tag": "GhosttyCellContentTag",
    "wide": "GhosttyCellWide",
    "style_id": "GhosttyStyleId",
    "has_hyperlink": "bool",
    "protected": "bool",
}


@attrs.frozen
class Cell:
    """One cell. `pen` is the SGR sequence of its style ("" = default); `background` that of a cell that
    was erased in a colour and holds no text. The right half of a wide character is `tail`, the gap that
    pushed one to the next row `gap`."""

    text: str
    pen: str
    background: str
    wide: bool
    tail: bool
    gap: bool
    link: str
    protected: bool


@attrs.frozen
class Row:
    cells: list[Cell]
    wrapped: bool


BLANK = Cell("", "", "", False, False, False, "", False)


def _sgr(style: Any) -> str:
    codes = ["0"]
    codes += [c for name, c in (("bold", "1"), ("faint", "2"), ("italic", "3")) if getattr(style, name)]
    if style.underline:
        codes.append(f"4:{style.underline}")
    marks = (("blink", "5"), ("inverse", "7"), ("invisible", "8"), ("strikethrough", "9"), ("overline", "53"))
    codes += [code for name, code in marks if getattr(style, name)]
    for colour, base in ((style.fg_color, 38), (style.bg_color, 48), (style.underline_color, 58)):
        if colour.tag == lib.GHOSTTY_STYLE_COLOR_PALETTE:
            codes.append(f"{base};5;{colour.value.palette}")
        elif colour.tag == lib.GHOSTTY_STYLE_COLOR_RGB:
            rgb = colour.value.rgb
            codes.append(f"{base};2;{rgb.r};{rgb.g};{rgb.b}")
    return f"\x1b[{';'.join(codes)}m"


def packed_rows(render: Any) -> Iterator[tuple[bool, list[int]]]:
    """(wrapped, packed cells) of each visible row: one call a row, where a grid reference costs two a
    cell."""
    cells = ffi.new("struct { uint64_t *ptr; size_t len; } *")
    for iterator, wraps in _rows(render):
        lib.ghostty_render_state_row_get(iterator, lib.GHOSTTY_RENDER_STATE_ROW_DATA_CELLS_RAW, cells)
        yield wraps, ffi.unpack(cells.ptr, cells.len)


def wrapped_rows(render: Any) -> list[bool]:
    """Per visible row: it goes on in the next one. A fifth of the cost of unpacking the cells as well."""
    return [wraps for _, wraps in _rows(render)]


def _rows(render: Any) -> Iterator[tuple[Any, bool]]:
    """(the library's iterator on that row, wrapped) of each visible row."""
    iterator = ffi.new("GhosttyRenderStateRowIterator*")
    check(lib.ghostty_render_state_row_iterator_new(ffi.NULL, iterator), "row iterator")
    try:
        check(lib.ghostty_render_state_get(render, lib.GHOSTTY_RENDER_STATE_DATA_ROW_ITERATOR, iterator), "rows")
        row, wrap = ffi.new("GhosttyRow*"), ffi.new("bool*")
        while lib.ghostty_render_state_row_iterator_next(iterator[0]):
            lib.ghostty_render_state_row_get(iterator[0], lib.GHOSTTY_RENDER_STATE_ROW_DATA_RAW, row)
            lib.ghostty_row_get(row[0], lib.GHOSTTY_ROW_DATA_WRAP, wrap)
            yield iterator[0], bool(wrap[0])
    finally:
        lib.ghostty_render_state_row_iterator_free(iterator[0])


class CellReader:
    """Unpacks cells. A packed value says everything but the style (its number means something only within
    the row's page), the link and the combining characters, so equal plain values of a row are unpacked
    once."""

    def __init__(self) -> None:
        self._outs = [ffi.new(kind + "*") for kind in _CELL_FIELDS.values()]
        self._keys = ffi.new(
            "GhosttyCellData[]", [getattr(lib, f"GHOSTTY_CELL_DATA_{name.upper()}") for name in _CELL_FIELDS]
        )
        self._values = ffi.new("void*[]", self._outs)
        self._size = ffi.new("size_t*")
        self._style = init_sized("GhosttyStyle")
        self._buffer = ffi.new("uint8_t[]", 65_536)

    def read(self, ref: Any, raw: list[int]) -> list[Cell]:
        cells, known = [], dict[int, Cell]()
        for x, value in enumerate(raw):
            cell = known.get(value)
            if cell is None:
                ref.x = x
                cell, plain = self._unpack(ref, value)
                if plain:
                    known[value] = cell
            cells.append(cell)
        return cells

    def _unpack(self, ref: Any, value: int) -> tuple[Cell, bool]:
        check(lib.ghostty_cell_get_multi(value, len(self._outs), self._keys, self._values, self._size), "cell")
        codepoint, tag, wide, style_id, has_link, protected = (out[0] for out in self._outs)
        text, background, pen = chr(codepoint) if codepoint else "", "", ""
        if tag == lib.GHOSTTY_CELL_CONTENT_CODEPOINT_GRAPHEME:
            text = self._graphemes(ref)
        elif tag != lib.GHOSTTY_CELL_CONTENT_CODEPOINT:
            text, background = "", self._background(value, tag)
        if style_id:
            check(lib.ghostty_grid_ref_style(ref, self._style), "style")
            pen = _sgr(self._style)
        tail, gap = wide == lib.GHOSTTY_CELL_WIDE_SPACER_TAIL, wide == lib.GHOSTTY_CELL_WIDE_SPACER_HEAD
        link = self._link(ref) if has_link else ""
        cell = Cell(text, pen, background, wide == lib.GHOSTTY_CELL_WIDE_WIDE, tail, gap, link, bool(protected))
        return cell, not has_link and tag != lib.GHOSTTY_CELL_CONTENT_CODEPOINT_GRAPHEME

    def _graphemes(self, ref: Any) -> str:
        codepoints = ffi.cast("uint32_t*", self._buffer)
        check(lib.ghostty_grid_ref_graphemes(ref, codepoints, len(self._buffer) // 4, self._size), "grapheme")
        return "".join(map(chr, ffi.unpack(codepoints, self._size[0])))

    def _background(self, value: int, tag: int) -> str:
        if tag == lib.GHOSTTY_CELL_CONTENT_BG_COLOR_PALETTE:
            index = ffi.new("GhosttyColorPaletteIndex*")
            lib.ghostty_cell_get(value, lib.GHOSTTY_CELL_DATA_COLOR_PALETTE, index)
            return f"\x1b[0;48;5;{index[0]}m"
        rgb = ffi.new("GhosttyColorRgb*")
        lib.ghostty_cell_get(value, lib.GHOSTTY_CELL_DATA_COLOR_RGB, rgb)
        return f"\x1b[0;48;2;{rgb.r};{rgb.g};{rgb.b}m"

    def _link(self, ref: Any) -> str:
        # A link longer than the buffer is dropped: the text stays, and no terminal follows 64 kB of address.
        if lib.ghostty_grid_ref_hyperlink_uri(ref, self._buffer, len(self._buffer), self._size):
            return ""
        return bytes(ffi.buffer(self._buffer, self._size[0])).decode("utf-8", "replace")
