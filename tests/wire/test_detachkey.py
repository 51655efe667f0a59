from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.errors import CspError
from cspd.wire.detachkey import KeyWatch, Verdict, parse

pytestmark = pytest.mark.pure


def judge(chunk: bytes, key: str = "^]") -> Verdict:
    return KeyWatch(parse(key)).judge(chunk)


@pytest.mark.parametrize(
    "chunk",
    [
        b"\x1d",
        b"\x1d\x1d",
        b"\x1b[93;5u",
        b"\x1b[93;5:1u",
        b"\x1b[93;5:2u",
        b"\x1b[93:125;5u",
        b"\x1b[93:125:93;5:1u",
        b"\x1b[93;69u",
        b"\x1b[93;133u",
        b"\x1b[93;197:1u",
        b"\x1b[93;5:1;93u",
        b"\x1b[1098::93;5u",
        b"\x1b[53;5u",
        b"\x1b[27;5;93~",
        b"\x1b[27;69;93~",
        b"\x1b[93;5u\x1b[93;5:3u",
    ],
)
def test_every_encoding_of_the_pressed_key_detaches(chunk: bytes) -> None:
    assert judge(chunk) is Verdict.DETACH


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"]",
        b"\x1dx",
        b"\x1b",
        b"\x1b[93u",
        b"\x1b[93;6u",
        b"\x1b[93;7u",
        b"\x1b[93;5",
        b"\x1b[91;5u",
        b"\x1b[27;5;91~",
        b"\x1b[27;6;93~",
        b"\x1b[93;5~",
        b"\x1d" * 300,
    ],
)
def test_anything_else_passes(chunk: bytes) -> None:
    assert judge(chunk) is Verdict.PASS


def test_the_release_of_the_key_alone_is_swallowed() -> None:
    assert judge(b"\x1b[93;5:3u") is Verdict.SWALLOW


def test_a_key_on_a_shifted_place_is_found_by_its_shifted_code() -> None:
    assert judge(b"\x1b[54:94;6u", "^^") is Verdict.DETACH
    assert judge(b"\x1b[54:94;6u", "^]") is Verdict.PASS


def test_letters_are_meant_without_case() -> None:
    for text in ("^a", "^A"):
        assert judge(b"\x01", text) is Verdict.DETACH
        assert judge(b"\x1b[97;5u", text) is Verdict.DETACH


def test_none_means_no_key_at_all() -> None:
    assert parse("none") is None
    assert judge(b"\x1d", "none") is Verdict.PASS


@pytest.mark.parametrize("text", ["", "]", "^", "^[", "^1", "^]]", "ctrl-]", "^ä", "^ß", "^ı", "^?"])
def test_a_word_that_is_no_key_is_refused_with_the_word_in_it(text: str) -> None:
    with pytest.raises(CspError) as caught:
        parse(text)
    assert caught.value.code == "usage"
    assert repr(text) in caught.value.sentence


def test_inside_a_bracketed_paste_the_key_is_text_and_after_it_a_key_again() -> None:
    watch = KeyWatch(parse("^]"))
    assert watch.judge(b"\x1b[200~abc") is Verdict.PASS
    assert watch.judge(b"\x1d") is Verdict.PASS
    assert watch.judge(b"def\x1b[201~") is Verdict.PASS
    assert watch.judge(b"\x1d") is Verdict.DETACH


@given(st.binary(max_size=40), st.binary(max_size=40), st.lists(st.integers(0, 60), max_size=4))
def test_a_bracketed_paste_cut_anywhere_never_detaches(before: bytes, after: bytes, cuts: list[int]) -> None:
    # before the paste only text: a key pressed then would be a real press
    body = b"." + b"\x1b[200~" + before.replace(b"\x1b", b".") + b"\x1d" + after.replace(b"\x1b", b".")
    edges = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    watch = KeyWatch(parse("^]"))
    verdicts = [watch.judge(body[start:end]) for start, end in pairwise(edges)]
    assert set(verdicts) == {Verdict.PASS}
    for piece in (b"\x1b[20", b"1~"):
        assert watch.judge(piece) is Verdict.PASS
    assert watch.judge(b"\x1d") is Verdict.DETACH


@given(st.binary(min_size=1, max_size=300))
def test_judging_never_fails_and_the_key_before_other_bytes_always_passes(chunk: bytes) -> None:
    assert judge(chunk) in Verdict
    assert judge(b"\x1d" + chunk + b"a") is Verdict.PASS


@pytest.mark.parametrize("typed", [b"ls\r", b"x", "grüße ".encode(), b"\x7f\x7f", b"a" * 64])
def test_the_key_behind_ordinary_typing_in_the_same_read_detaches_and_the_typing_counts(typed: bytes) -> None:
    for key in (b"\x1d", b"\x1b[93;5u"):
        watch = KeyWatch(parse("^]"))
        assert watch.judge(typed + key) is Verdict.DETACH
        assert watch.before(typed + key) == typed


@pytest.mark.parametrize("bulk", [bytes(range(0x1E)), b"a" * 65 + b"\x1d", b"\x1b[A\x1d"])
def test_the_key_behind_anything_else_passes(bulk: bytes) -> None:
    assert judge(bulk) is Verdict.PASS
