"""Keys as text: what is a key, and what is refused before anything is looked up."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mxgw_acl.keyformat import KEY_REGEX, KeyText, new_key_id, new_secret, parse_key

PAGE = Path(__file__).parents[3] / "docs" / "securing.md"


def a_key() -> KeyText:
    return KeyText("test", new_key_id(), new_secret())


def test_a_key_is_read_back_as_it_was_made() -> None:
    key = a_key()

    assert parse_key(key.text()) == key


def test_a_key_is_one_word_that_a_scanner_finds() -> None:
    key = a_key()

    assert re.fullmatch(r"\w+", key.text())
    assert re.search(KEY_REGEX, f"export KEY='{key.text()}'")
    assert f"`{KEY_REGEX}`" in PAGE.read_text(encoding="utf-8")


def test_a_secret_has_256_bits_and_shows_in_no_repr() -> None:
    key = a_key()

    assert len({new_secret() for _ in range(1000)}) == 1000
    assert len(key.secret) == 43
    assert key.secret not in repr(key)


@given(st.integers(min_value=0, max_value=79), st.sampled_from("aZ09_-é "))
def test_one_wrong_character_is_noticed_by_the_checksum(place: int, wrong: str) -> None:
    text = KeyText("test", "A" * 12, "b" * 43).text()
    place %= len(text)
    if text[place] == wrong:
        return

    assert parse_key(text[:place] + wrong + text[place + 1 :]) is None


@given(st.text(max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    assert parse_key(text) is None
