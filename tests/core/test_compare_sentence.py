"""What a person would say: grammar, and the whole number of tokens at which two arms are even."""

from fractions import Fraction
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.compare import compare
from engine.core.comparing.design import Design
from engine.core.comparing.sentence import break_even, is_plural
from engine.core.comparing.values import Arm, BreakEven
from tests.core.compared import ONE_CARD, TWO_CARDS, WOBBLE, A, B, pair, published, swapped

PUBLISHED = (
    "Two cards answer 31 % sooner and write 43 % slower; for answers over 5 tokens one card wins."
)


def said(ratios: dict[str, float], a: Arm = A, b: Arm = B) -> str:
    """The sentence where B has these multiples of A's figures (TTFT 100 ms, TPOT 10 ms)."""
    base = {"ttft_ms": 100.0, "tpot_ms": 10.0}
    pairs = [
        pair(
            {name: base.get(name, 50.0) for name in ratios},
            {name: base.get(name, 50.0) * ratio * exp(one) for name, ratio in ratios.items()},
        )
        for one in WOBBLE
    ]
    return compare(pairs, a=a, b=b, design=Design.of(10, early=False)).sentence


def test_the_published_pair() -> None:
    even = [pair(ONE_CARD, TWO_CARDS) for _ in range(6)]
    assert compare(even, a=A, b=B).sentence == PUBLISHED
    outcome = compare(published(), a=A, b=B)
    assert outcome.sentence == PUBLISHED
    assert outcome.break_even == BreakEven(tokens=5, longer="a", between=(5, 5))


def test_the_break_even_has_a_span_where_the_figures_do() -> None:
    pairs = [
        pair(
            {"ttft_ms": 1000.0, "tpot_ms": 10.0},
            {"ttft_ms": 900.0 * exp(3 * one), "tpot_ms": 11.0 * exp(2 * one)},
        )
        for one in WOBBLE
    ]
    even = compare(pairs, a=A, b=B).break_even
    assert even is not None
    assert even.tokens == 101
    assert even.between is not None
    assert even.between[0] < 90 < 115 < even.between[1]


def test_the_published_pair_the_other_way_round() -> None:
    outcome = compare(swapped(published()), a=B, b=A)
    assert outcome.sentence == (
        "One card answers 45 % later and writes 43 % faster; "
        "for answers over 5 tokens one card wins."
    )
    assert outcome.break_even == BreakEven(tokens=5, longer="b", between=(5, 5))


@pytest.mark.parametrize(
    ("ratios", "sentence"),
    [
        ({"ttft_ms": 0.9, "tpot_ms": 0.8}, "Two cards answer 10 % sooner and write 25 % faster."),
        ({"ttft_ms": 1.1, "tpot_ms": 1.08}, "Two cards answer 10 % later and write 8.0 % slower."),
        ({"ttft_ms": 0.69}, "Two cards answer 31 % sooner."),
        ({"tpot_ms": 3.5}, "Two cards write 3.5 times as slowly."),
        ({"tpot_ms": 0.05}, "Two cards write 20 times as fast."),
        ({"ttft_ms": 2.5}, "Two cards take 2.5 times as long to answer."),
        ({"output_tokens_per_s": 1.12}, "Two cards give 12 % more tokens/s."),
        ({"output_tokens_per_s": 0.5}, "Two cards give 50 % fewer tokens/s."),
        ({"output_tokens_per_s": 3.58}, "Two cards give 3.6 times the tokens/s."),
        ({"itl_ms": 1.2}, "Two cards make the gap between tokens 20 % longer."),
        ({"output_tokens_per_s_per_gpu": 0.6}, "Two cards give 40 % fewer tokens/s per GPU."),
        (
            {"ttft_ms": 0.7, "tpot_ms": 1.0},
            "Two cards answer 30 % sooner; in the time per token no difference was seen.",
        ),
        (
            {"ttft_ms": 1.0, "tpot_ms": 1.0, "output_tokens_per_s": 1.5},
            "Two cards give 50 % more tokens/s; in the time to the first token and the time per "
            "token no difference was seen.",
        ),
        (
            {"ttft_ms": 1.5, "tpot_ms": 1.3, "output_tokens_per_s": 1.8},
            "Two cards answer 50 % later and write 30 % slower. "
            "Over all streams they give 80 % more tokens/s.",
        ),
        (
            {"ttft_ms": 0.7, "tpot_ms": 1.3, "output_tokens_per_s": 0.8},
            "Two cards answer 30 % sooner and write 30 % slower; "
            "for answers over 11 tokens one card wins.",
        ),
    ],
)
def test_sentences(ratios: dict[str, float], sentence: str) -> None:
    assert said(ratios) == sentence


def test_no_difference_says_which_one_would_have_been_seen() -> None:
    assert said({"ttft_ms": 1.0, "tpot_ms": 1.0}) == (
        "No difference was seen between one card and two cards; one of 0.5 % in the time to the "
        "first token and one of 0.5 % in the time per token would most likely have been."
    )


def test_one_arm_is_singular() -> None:
    assert said({"ttft_ms": 1.5, "tpot_ms": 1.3, "output_tokens_per_s": 1.8}, B, A) == (
        "One card answers 50 % later and writes 30 % slower. "
        "Over all streams it gives 80 % more tokens/s."
    )


def test_a_length_of_one_token_is_singular_and_thousands_are_grouped() -> None:
    assert said({"ttft_ms": 0.99, "tpot_ms": 1.5}).endswith("over 1 token one card wins.")
    assert "over 1,801 tokens" in said({"ttft_ms": 0.1, "tpot_ms": 1.005})


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("two cards", True),
        ("4 instances", True),
        ("1 instance of 64 cores", False),
        ("one card", False),
        ("b.toml", False),
        ("int8", False),
        ("two", False),
        ("both sockets", True),
    ],
)
def test_plural_is_guessed_from_the_first_word(name: str, plural: bool) -> None:
    assert is_plural(Arm(name)) is plural
    assert is_plural(Arm(name, plural=not plural)) is not plural


def test_names_of_files_and_instances_keep_their_letters() -> None:
    assert said({"ttft_ms": 0.5}, b=Arm("demo")).startswith("demo answers")
    assert said({"ttft_ms": 0.5}, b=Arm("layouts/b.toml copy")).startswith("layouts/b.toml")
    assert said({"ttft_ms": 0.5}, b=Arm("pinned to node 0")).startswith("Pinned to node 0")


tenths = st.integers(1, 5000).map(lambda value: value / 10)


@given(tenths, tenths, tenths, tenths)
def test_the_break_even_is_the_last_length_that_the_slower_writer_does_not_lose(
    ttft_a: float, tpot_a: float, ttft_b: float, tpot_b: float
) -> None:
    def ends(ttft: float, tpot: float, tokens: int) -> Fraction:
        return Fraction(str(ttft)) + (tokens - 1) * Fraction(str(tpot))

    def ahead(tokens: int) -> str:
        a, b = ends(ttft_a, tpot_a, tokens), ends(ttft_b, tpot_b, tokens)
        return "a" if a < b else "b" if b < a else "even"

    even = break_even(ttft_a, tpot_a, ttft_b, tpot_b)
    if even is None:
        sooner, faster = ttft_a - ttft_b, tpot_a - tpot_b
        assert sooner * faster >= 0
        return
    assert even.tokens >= 1
    assert {ahead(even.tokens + more) for more in (1, 2, 1000)} == {even.longer}
    assert ahead(even.tokens) != even.longer
    assert ahead(1) not in (even.longer, "even")


def test_a_whole_number_is_even_and_not_yet_won() -> None:
    # 30.3 - 10.1 over 20.2 - 10.1 is 2 exactly: at 3 tokens both end at the same time.
    assert break_even(30.3, 10.1, 10.1, 20.2) == BreakEven(tokens=3, longer="a")
    assert break_even(100.48, 15.19, 69.22, 21.78) == BreakEven(tokens=5, longer="a")
    assert break_even(69.22, 21.78, 100.48, 15.19) == BreakEven(tokens=5, longer="b")
    assert break_even(50.0, 10.0, 40.0, 9.0) is None
    assert break_even(50.0, 10.0, 50.0, 9.0) is None
