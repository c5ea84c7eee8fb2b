import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.worker.text import Detokenizer, StopStrings


def decode(ids: list[int]) -> str:
    """One token a byte."""
    return bytes(ids).decode("utf-8", "replace")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_arrives_whole_and_never_in_half_characters(text: str) -> None:
    text = text.replace("\ufffd", "")
    detokenizer = Detokenizer(decode)
    pieces = [detokenizer.add(token) for token in text.encode()]
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) + detokenizer.rest() == text


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_text_are_marked_not_lost(data: bytes) -> None:
    detokenizer = Detokenizer(decode)
    made = "".join(detokenizer.add(token) for token in data) + detokenizer.rest()
    whole = data.decode("utf-8", "replace")
    assert made.replace("\ufffd", "") == whole.replace("\ufffd", "")


@settings(deadline=None)
@given(
    st.lists(st.text("abc", max_size=4), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
)
def test_text_ends_right_before_the_first_stop_string(pieces: list[str], stops: list[str]) -> None:
    scanner = StopStrings(stops)
    sent = ""
    so_far = ""
    for piece in pieces:
        sent += scanner.add(piece)
        so_far += piece
        if scanner.stopped:
            break
        assert not any(stop in so_far for stop in stops)
    sent += scanner.rest()
    if scanner.stopped:
        assert sent == so_far[: min(so_far.find(stop) for stop in stops if stop in so_far)]
    else:
        assert sent == so_far


@pytest.mark.parametrize(
    ("pieces", "sent"),
    [
        (["Hello <", "|im_", "end|> more"], ["Hello ", "", ""]),
        (["a<|", "b"], ["a", "<|b"]),
        (["<", "<", "|im_end|>"], ["", "<", ""]),
    ],
)
def test_what_may_become_a_stop_string_is_held_back(pieces: list[str], sent: list[str]) -> None:
    scanner = StopStrings(["<|im_end|>"])
    assert [scanner.add(piece) for piece in pieces] == sent
