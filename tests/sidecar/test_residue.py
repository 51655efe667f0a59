"""Text that stands in the input box already: ours of a failed attempt, the program's, a person's; nothing joins it."""

import pytest
from sidecar.composer import TEXT, Composer

from cspd.sidecar.residue import EMPTY_SEC

pytestmark = pytest.mark.pure


def test_after_a_text_that_never_showed_a_known_box_must_be_seen_empty_for_long() -> None:
    cli = Composer(drops=1)
    cli.send()
    cli.send("m2", "[Context: gemini sent a message]\nthe next one")
    cli.run(5 + EMPTY_SEC - 0.5)
    assert cli.steps()[-1].startswith("unknown")
    assert cli.steps("m2") == ["held(busy)", "held(leftover)"]
    cli.run(3)
    assert cli.submitted == ["[Context: gemini sent a message]\nthe next one"]


def test_a_text_that_shows_after_all_is_no_longer_waited_for_but_left_to_the_person() -> None:
    cli = Composer(drops=1)
    cli.send()
    cli.send("m2", "[Context: gemini sent a message]\nthe next one")
    cli.run(5 + EMPTY_SEC / 2)
    cli.line, cli.output_at = TEXT, cli.now
    cli.run(3 * EMPTY_SEC)
    assert cli.steps("m2")[-1] == "held(leftover)"
    assert (cli.submitted, len(cli.keys)) == ([], 1)
    cli.type(b"\x15")
    cli.run(0.1)
    cli.line = ""
    cli.run(5)
    assert cli.submitted == ["[Context: gemini sent a message]\nthe next one"]


def test_text_in_the_box_that_nobody_was_heard_typing_is_left_alone() -> None:
    cli = Composer()
    cli.line = "a prompt that the program has put back"
    cli.send()
    cli.run(5)
    assert (cli.keys, cli.steps()) == ([], ["held(human_typing)"])
    cli.line = ""
    cli.run(3)
    assert cli.submitted == [TEXT]


def test_how_an_empty_input_looks_is_not_learned_from_a_box_with_text_in_it() -> None:
    cli = Composer()
    empty = cli.arbiter.anchor
    cli.line = "a prompt that the program has put back"
    cli.run(5)
    assert cli.arbiter.anchor == empty


def test_a_persons_draft_is_never_joined() -> None:
    cli = Composer()
    cli.type(b"half a line")
    cli.send()
    cli.run(10)
    assert cli.steps() == ["held(human_typing)"]
    cli.type(b" and the rest\r")
    cli.run(6)
    assert cli.submitted == ["half a line and the rest", TEXT]
