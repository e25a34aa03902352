"""Globs: what they stand for, and that a match costs the same whatever text somebody chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mxgw_core.api import Globs, Identity, Metric, MetricKind, MetricSample, Operator, check_glob
from mxgw_core.api.globs import LONGEST_MIDDLE, LONGEST_PATTERN, _Glob, _places


def is_match(pattern: str, text: str) -> bool:
    """The meaning of a glob, as plainly as it can be written."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(is_match(pattern[1:], text[taken:]) for taken in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and is_match(pattern[1:], text[1:])


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("Tank_*.Level", "Tank_001.Level", True),
        ("tank_*.LEVEL", " Tank_001.Level ", True),
        (" Tank_*.Level ", "Tank_001.Level", True),
        ("Tank_*.Level", "Tank_.Level", True),
        ("Tank_*.Level", "Tank_001.Level2", False),
        ("Tank_00?.Level", "Tank_001.Level", True),
        ("Tank_00?.Level", "Tank_00.Level", False),
        ("Tank_00?.Level", "Tank_0010.Level", False),
        ("a*a", "a", False),
        ("*ab*ab", "ab", False),
        ("*x??*y", "aaxy", False),
        ("*??", "a", False),
        ("**", "", True),
        ("", "", True),
        ("", "a", False),
        ("*", "two\nlines", True),
        # Brackets are part of names, and of nothing else.
        ("Obj.Arr[]", "Obj.Arr[]", True),
        ("Obj.Arr[]", "Obj.Arr", False),
        ("Obj.Arr[1]", "Obj.Arr[1]", True),
        ("Obj.Arr[1]", "Obj.Arr1", False),
        ("Obj.Arr[?]", "Obj.Arr[7]", True),
        ("Obj.Arr[*]", "Obj.Arr[]", True),
        ("Obj.Arr[12]", "Obj.Arr1", False),
        ("*[!a]*", "b", False),
        (r"a\*", "a*", False),
        # Case folds as text does: one character may become two.
        ("STRASSE*", "straße_1", True),
    ],
)
def test_only_the_star_and_the_question_mark_are_special(pattern: str, text: str, matches: bool) -> None:
    assert Globs([pattern]).match(text) is matches


@given(st.text("ab[]*?", max_size=8), st.text("ab[]", max_size=9))
@example("*x??*y", "aaxy")
def test_a_glob_means_what_its_characters_mean_one_by_one(pattern: str, text: str) -> None:
    assert Globs([pattern]).match(text) is is_match(pattern, text)


@given(st.lists(st.text("ab*?", max_size=6), max_size=4), st.text("ab", max_size=8))
def test_of_several_any_is_enough(patterns: list[str], text: str) -> None:
    assert Globs(patterns).match(text) is any(is_match(pattern, text) for pattern in patterns)


class Counting(dict[str, int]):
    """Places of a text that count how often they are asked for: once for each character of a pattern that is tried."""

    def __init__(self, text: str) -> None:
        super().__init__(_places(text))
        self.asked = 0

    def get(self, key: str, default: int | None = None) -> int | None:  # type: ignore[override]
        self.asked += 1
        return super().get(key, default)


HARD = [
    ("line*_*_*.pv", lambda length: "line" + "_" * (length - 7) + ".pv"),
    ("*_*_*_*.pv", lambda length: "_" * (length - 3) + ".pv"),
    ("*line*.*.*.pv", lambda length: "line" + "." * (length - 7) + ".pv"),
    ("*a*a*a*a*b*pv", lambda length: "a" * (length - 2) + "pv"),
    ("*a?a?a?a?b*", lambda length: "a" * length),
]


@pytest.mark.parametrize(("pattern", "text_of"), HARD)
def test_a_longer_text_takes_no_more_steps(pattern: str, text_of: Callable[[int], str]) -> None:
    steps = []
    for length in (64, 1024, 16384):
        text = text_of(length)
        places = Counting(text)
        glob = _Glob(pattern)

        assert glob.may_match(text)

        glob.reaches_its_end(length, places)
        steps.append(places.asked)

    assert max(steps) <= len(pattern)


def test_the_places_of_a_text_are_noted_once_for_all_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []

    def places(text: str) -> dict[str, int]:
        noted.append(text)
        return dict(_places(text))

    monkeypatch.setattr("mxgw_core.api.globs._places", places)

    assert not Globs([f"*a*{number:02}*b*" for number in range(50)]).match("ab" * 500)
    assert len(noted) == 1
    # Most patterns need none: head and tail decide.
    assert not Globs(["Tank_*.Level", "*.SP", "Line4"]).match("Tank_001.PV")
    assert len(noted) == 1


@pytest.mark.parametrize("patterns", ["Tank*", b"Tank*", bytearray(b"*"), [b"Tank*"], [None]], ids=repr)
def test_a_single_text_or_what_is_no_text_is_refused(patterns: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a (sequence of texts|text), not"):
        Globs(patterns)


@pytest.mark.parametrize("single", ["administrator", b"administrator"])
@pytest.mark.parametrize(
    "make",
    [
        lambda text: Identity("a", "key", roles=text),
        lambda text: Operator("a", text),
        lambda text: Operator("a", (), text),
        lambda text: MetricSample(1.0, text),
        lambda text: Metric("acme", MetricKind.GAUGE, "x", text),
    ],
    ids=["Identity.roles", "Operator.roles", "Operator.tags", "MetricSample.labels", "Metric.labels"],
)
def test_no_type_takes_a_single_text_for_several(make: Callable[[Any], object], single: Any) -> None:
    with pytest.raises(TypeError, match="must be a sequence of texts, not a single"):
        make(single)


@pytest.mark.parametrize("check", [check_glob, lambda pattern: Globs(["a", pattern])], ids=["check_glob", "Globs"])
def test_a_pattern_that_would_take_long_is_refused_in_words(check: Callable[[str], object]) -> None:
    check("a" * 400 + "*" + "b" * (LONGEST_MIDDLE - 2) + "?" + "c" * 400)
    with pytest.raises(ValueError, match=f"{LONGEST_MIDDLE + 1} characters from its first to its last"):
        check("*" + "b" * (LONGEST_MIDDLE - 1) + "*")
    with pytest.raises(ValueError, match=f"{LONGEST_PATTERN + 1} characters, {LONGEST_PATTERN} are allowed"):
        check("a" * (LONGEST_PATTERN + 1))
