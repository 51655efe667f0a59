"""The game of the demo's agents, without terminals."""

import pytest

from cspctl.demo_agent import HIGHEST, LOWEST, Ear, Guesser, Thinker, guesses_needed

pytestmark = pytest.mark.pure


def deliver(ear: Ear, sender: str, text: str) -> list[str]:
    assert ear.hear(f"[Context: {sender} sent a message]\n") == []
    return ear.hear(f"{text}\n")


def play(number: int) -> list[str]:
    """Everything that is said after `begin`, in order."""
    ears = {"alpha": Ear(Thinker("beta", number)), "beta": Ear(Guesser("alpha"))}
    said = deliver(ears["alpha"], "human", "begin")
    speaker, all_said = "alpha", []
    while said:
        all_said += said
        to, _, text = said[0].removeprefix("@").partition(": ")
        speaker, said = to, deliver(ears[to], speaker, text)
        assert len(all_said) < 20, "the game does not end"
    return all_said


@pytest.mark.parametrize("number", range(LOWEST, HIGHEST + 1))
def test_every_number_is_found_within_seven_guesses_and_both_say_goodbye(number: int) -> None:
    said = play(number)
    guesses = [line for line in said if "is it" in line and line.endswith("?") and "What" not in line]
    assert guesses[-1] == f"@alpha: is it {number}?"
    assert len(guesses) == guesses_needed(number) <= 7
    assert said[-2:] == [f"@beta: correct, it is {number}. Goodbye!", "@alpha: that was fun. Goodbye!"]


def test_only_what_stands_behind_a_header_is_a_message() -> None:
    ear = Ear(Thinker("beta", 50))
    assert ear.hear("begin\n") == []
    assert deliver(ear, "human", "begin") != []
    assert ear.hear("50\n") == [], "one header announces one line"


def test_a_second_game_begins_with_all_numbers() -> None:
    guesser = Guesser("alpha")
    guesser("50 is wrong, it is lower.")
    assert guesser("I think of a number from 1 to 100. What is it?") == ["@alpha: is it 50?"]


def test_talk_that_is_not_of_the_game_gets_no_answer() -> None:
    assert Guesser("alpha")("how are you?") == []
    assert Thinker("beta", 5)("how are you?") == []
