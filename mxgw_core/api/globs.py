"""Globs: patterns with `*` and `?` that people write in settings, and that are compared with names which clients
choose.

A comparison takes a limited time, whatever name a client sends. A regular expression cannot promise this, because it
tries many ways to match a name. Here the pattern is processed one character after the other, and each character once.
One large number stores how far the name can be matched by the characters so far: bit n is set when they match exactly
the first n characters of the name. Each character of the pattern changes this number with a few operations. Only the
part from the first to the last `*` or `?` needs this method, at most `LONGEST_MIDDLE` characters, which are 128.
Source: R. Baeza-Yates, G. Gonnet, A new approach to text searching, CACM 35 (1992), with text and pattern exchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mxgw_core.api.texts import check_texts

# The largest number of characters that a pattern can have: from its first to its last `*` or `?` (both count), and in
# all. `Globs` and `check_glob` refuse longer ones.
LONGEST_MIDDLE = 128
LONGEST_PATTERN = 1024


class Globs:
    """Patterns: `*` matches any number of characters, `?` matches one character, any other character matches itself.

    Case is ignored, and so are blanks at the begin and the end of names and patterns.

    Raises:
        TypeError: `patterns` is a single text, or one of the patterns is no text.
        ValueError: a pattern is too long (see `check_glob`).
    """

    __slots__ = ("_globs",)

    def __init__(self, patterns: Iterable[str]) -> None:
        check_texts("Globs", patterns)
        self._globs = tuple(_checked(pattern) for pattern in patterns)

    def match(self, text: str) -> bool:
        """Return whether at least one pattern matches the whole name."""
        text = text.strip().casefold()
        places: Mapping[str, int] | None = None
        for glob in self._globs:
            if not glob.may_match(text):
                continue
            if not glob.middle:
                return True
            if places is None:
                places = _places(text)
            if glob.reaches_its_end(len(text), places):
                return True
        return False


def check_glob(pattern: str) -> None:
    """Make sure that a pattern is not too long. A longer pattern would take too much time in a call with many items.

    Raises:
        TypeError: the pattern is no text.
        ValueError: the pattern is too long. The text says which length is allowed.
    """
    _checked(pattern)


def _checked(pattern: str) -> _Glob:
    if not isinstance(pattern, str):
        raise TypeError(f"a pattern must be a text, not {type(pattern).__name__}")
    glob = _Glob(pattern.strip().casefold())
    if len(glob.middle) > LONGEST_MIDDLE:
        raise ValueError(
            f"{pattern[:40]!r}… has {len(glob.middle)} characters from its first to its last * or ?, {LONGEST_MIDDLE} "
            "are allowed: shorten it, or use several"
        )
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"{pattern[:40]!r}… has {len(pattern)} characters, {LONGEST_PATTERN} are allowed")
    return glob


class _Glob:
    """One pattern in three parts. The middle begins at the first `*` or `?` and ends with the last one. `_head` is the
    text before the middle, `_tail` the text after it.
    """

    __slots__ = ("_head", "_shortest", "_tail", "_whole", "middle")

    def __init__(self, pattern: str) -> None:
        special = [index for index, character in enumerate(pattern) if character in "*?"]
        self._whole = pattern if not special else None
        first, last = (special[0], special[-1]) if special else (0, -1)
        self._head, self._tail = pattern[:first], pattern[last + 1 :]
        self._shortest = len(pattern) - pattern.count("*")
        # "" when there is no middle, or the middle is only `*`. Then it is enough to compare the length, and the texts
        # before and after the middle.
        self.middle = pattern[first : last + 1]
        if not self.middle.strip("*"):
            self.middle = ""

    def may_match(self, text: str) -> bool:
        """Return whether a name is long enough, and begins and ends like the pattern. The middle of the pattern is not
        compared here.
        """
        if self._whole is not None:
            return text == self._whole
        return len(text) >= self._shortest and text.startswith(self._head) and text.endswith(self._tail)

    def reaches_its_end(self, length: int, places: Mapping[str, int]) -> bool:
        """Return whether the middle of the pattern matches the corresponding part of the name.

        `length` is the length of the name, `places` the positions of its characters (see `_places`).
        """
        end = length - len(self._tail)
        # Bit n is set when the pattern up to this character can match exactly the first n characters of the name.
        ends = 1 << len(self._head)
        for character in self.middle:
            if character == "*":
                first = ends & -ends
                if first >> end > 1:
                    return False
                ends = (2 << end) - first  # sets all bits from the lowest set bit up to the begin of `_tail`
            elif character == "?":
                ends <<= 1
            else:
                ends = (ends & places.get(character, 0)) << 1
            if not ends:
                return False
        return bool(ends >> end & 1)


def _places(text: str) -> Mapping[str, int]:
    """Return the positions of each character in a name. Key: a character. Value: a number in which bit n is set when
    the character is at position n.
    """
    places: dict[str, int] = {}
    bit = 1
    for character in text:
        places[character] = places.get(character, 0) | bit
        bit <<= 1
    return places
