"""The one error type: what people read, what scripts get, and the word they probably meant."""

import pytest

from cspd.errors import EXIT_STATUS, CspError, nearest

pytestmark = pytest.mark.pure


def test_an_error_reads_as_its_sentence_with_the_hint_in_brackets() -> None:
    assert str(CspError("x", "agent: 'bob': not known")) == "agent: 'bob': not known"
    assert str(CspError("x", "agent: 'bob': not known", "cspctl list")) == "agent: 'bob': not known (cspctl list)"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("usage", 2),
        ("not-active", 3),
        ("no-such-agent", 4),
        ("no-such-room", 4),
        ("unreachable", 5),
        ("timed-out", 6),
        ("some-other-code", 1),
    ],
)
def test_the_exit_status_follows_from_the_code(code: str, status: int) -> None:
    assert CspError(code, "what: which: why").exit_status == status


def test_codes_are_lower_case_words_with_dashes() -> None:
    assert all(code.replace("-", "").isalpha() and code.islower() for code in EXIT_STATUS)


def test_the_data_of_an_error_is_its_own() -> None:
    given = {"problems": ["a"]}
    error = CspError("x", "sentence", data=given)
    error.data.pop("problems")
    assert given == {"problems": ["a"]}
    assert CspError("x", "sentence").data == {}


def test_the_nearest_known_word_is_suggested() -> None:
    assert nearest("cluade", ["claude", "codex"]) == "did you mean 'claude'?"
    assert nearest("zzz", ["claude", "codex"]) == ""
    assert nearest("claude", []) == ""
