"""Which lines of an agent's words are a message to somebody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspd.sidecar.speech import Grammar, Listener, Said, spoken

pytestmark = pytest.mark.pure

HI = [Said("beta", "hi there")]


def heard(text: str, grammar: Grammar | None = None) -> list[Said]:
    return spoken(text, grammar or Grammar())


ONE = {
    "a line": "@beta: hi there",
    "without a blank": "@beta:hi there",
    "between paragraphs": "Yes.\n\n@beta: hi there\n\nThat is all.",
    "behind other words": "I shall tell it.\n@beta: hi there",
    "indented a little": "   @beta: hi there",
    "in bold": "**@beta:** hi there",
    "with a bold name": "**@beta**: hi there",
    "in italics": "_@beta:_ hi there",
    "on the next line": "@beta:\nhi there",
    "in brackets": "@beta: <<<\nhi there\n>>>\nnot this",
    "with a carriage return": "@beta: hi there\r\n",
    "before a blank line of blanks": "@beta: hi there\n   \nnot this",
}


@pytest.mark.parametrize("text", ONE.values(), ids=ONE)
def test_a_line_that_begins_with_a_name_is_a_message(text: str) -> None:
    assert heard(text) == HI


NONE = {
    "inside a line": "tell @beta: hi there",
    "a list": "- @beta: hi there\n* @beta: hi there\n1. @beta: hi there",
    "quoted": "> @beta: hi there\n> > @beta: hi",
    "a heading": "# @beta: hi there",
    "a table": "| @beta: hi there |",
    "inline code": "`@beta: hi there`",
    "indented code": "    @beta: hi there\n\t@beta: hi",
    "fenced code": "```\n@beta: hi there\n\n@all: hi\n```",
    "fenced code with a language": "```python\n@beta: hi there\n```",
    "tildes": "~~~\n@beta: hi there\n```\n@beta: hi\n~~~",
    "a longer fence": "````\n```\n@beta: hi there\n```\n````",
    "a fence that is never closed": "```\n@beta: hi there",
    "a fence in a list": "- ```\n@beta: hi there\n  ```",
    "a fence that is indented": "   ```sh\n@beta: hi\n   ```",
    "nothing said": "@beta:\n\n@beta:   \n@beta: <<<\n\n>>>",
    "no name": "@: hi\n@-x: hi\n@Beta: hi\n@beta hi\n@beta : hi",
    "an address": "@beta.example: hi\nbeta@all: hi",
}


@pytest.mark.parametrize("text", NONE.values(), ids=NONE)
def test_what_is_shown_or_quoted_is_said_to_nobody(text: str) -> None:
    assert heard(text) == []


def test_a_message_goes_on_until_an_empty_line() -> None:
    assert heard("@beta: one\ntwo\n  three\n\nfour") == [Said("beta", "one\ntwo\n  three")]


def test_a_message_goes_on_until_the_next_keyword() -> None:
    assert heard("@beta: one\ntwo\n@all: three") == [Said("beta", "one\ntwo"), Said("all", "three")]


def test_a_code_block_inside_a_message_belongs_to_it_whole() -> None:
    block = "run this:\n```sh\nls\n\n@gamma: no\n```\nand tell me"
    assert heard(f"@beta: {block}\n\nthe end") == [Said("beta", block)]


def test_after_a_code_block_keywords_are_heard_again() -> None:
    assert heard("```\n@all: no\n```\n@beta: hi there") == HI


def test_brackets_hold_empty_lines_keywords_and_code() -> None:
    content = "one\n\n@gamma: two\n```\n>> three\n\n> four"
    assert heard(f"@beta: <<<\n{content}\n>>>\n@all: five") == [Said("beta", content), Said("all", "five")]


def test_longer_brackets_hold_shorter_ones() -> None:
    assert heard("@beta: <<<<\n>>> x\n>>>\n>>>>") == [Said("beta", ">>> x\n>>>")]


def test_brackets_that_are_never_closed_end_with_the_answer() -> None:
    assert heard("@beta: <<<\none\n\ntwo") == [Said("beta", "one\n\ntwo")]


def test_a_shift_operator_is_no_bracket() -> None:
    assert heard("@beta: <<< x\n\ny") == [Said("beta", "<<< x")]


def test_the_inner_indentation_of_a_message_is_kept() -> None:
    assert heard("@beta:\n  def f():\n    pass") == [Said("beta", "  def f():\n    pass")]


def test_the_keyword_can_be_another_one() -> None:
    grammar = Grammar("TO {name} >")
    assert heard("TO beta > hi there\n\n@beta: no", grammar) == HI
    assert grammar.begin == "TO"


def test_further_names_stand_for_agents_or_for_all() -> None:
    grammar = Grammar(names={"Reviewer": "beta", "team": "all"})
    assert heard("@Reviewer: hi there\n@team: one\n@beta: two", grammar) == [
        *HI,
        Said("all", "one"),
        Said("beta", "two"),
    ]


@given(st.text(alphabet="@beta:<>`~* \n\r#", max_size=60))
def test_no_text_breaks_it_and_nothing_is_said_that_does_not_stand_there(text: str) -> None:
    for said in heard(text):
        assert said.content.strip()
        assert all(line.strip() in text for line in said.content.split("\n"))


@given(st.lists(st.sampled_from(["@beta: x", "@all: y", "", "z", "> @beta: q"]), max_size=20))
def test_nothing_in_a_code_block_is_heard_whatever_stands_in_it(lines: list[str]) -> None:
    assert heard("\n".join(["```", *lines, "```"])) == []


def test_a_line_that_cannot_be_read_ends_a_message_and_unmakes_one_in_brackets() -> None:
    listener = Listener(Grammar())
    assert listener.line("@beta: hi there") == []
    assert listener.cut() == HI
    listener.line("@beta: <<<")
    listener.line("one")
    assert listener.cut() == []
    assert not listener.open
