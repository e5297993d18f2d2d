from __future__ import annotations

from hypothesis import given, strategies as st

from alcove import limits
from alcove.agents.transcript import Transcript


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.integers(0, 40)))
def test_chunks_may_be_cut_anywhere(text: str, cuts: list[int]) -> None:
    transcript = Transcript()
    data = text.encode()
    for cut in cuts:
        transcript.feed("stdout", data[:cut])
        data = data[cut:]
    transcript.feed("stdout", data)
    assert transcript.kept() == (text, 0, "")


@given(st.binary())
def test_any_bytes_become_text(data: bytes) -> None:
    transcript = Transcript()
    transcript.feed("stdout", data)
    kept = transcript.kept()
    assert kept.head == data.decode(errors="replace")
    assert transcript.kept() == kept


def test_a_character_survives_the_other_stream_in_its_middle() -> None:
    transcript = Transcript()
    transcript.feed("stdout", b"\xe4\xb8")
    transcript.feed("stderr", b"!")
    transcript.feed("stdout", b"\xad")
    assert transcript.kept().head == "!中"


def test_other_streams_are_passed_over() -> None:
    transcript = Transcript(("stdout",))
    transcript.feed("stderr", b"noise")
    transcript.feed("stdout", b"text")
    assert transcript.kept().head == "text"


def test_a_flood_leaves_its_head_its_tail_and_a_count() -> None:
    transcript = Transcript()
    chunk = "中".encode() * 1000
    for _ in range(2000):
        transcript.feed("stdout", chunk)
    kept = transcript.kept()
    assert set(kept.head) == set(kept.tail) == {"中"}
    kept_bytes = len((kept.head + kept.tail).encode())
    assert kept_bytes <= limits.ANSWER_BYTES
    assert 0 <= 2000 * len(chunk) - kept.left_out_bytes - kept_bytes <= 4
    assert "bytes of output left out" in kept.note()
