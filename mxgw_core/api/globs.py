"""Globs: patterns that people write in settings, matched with names from outside.

Matching takes a bounded number of steps for every name, however it was chosen. The bits of one number are all positions
of the name where the pattern so far may end, and each character of the pattern moves them once. So a match takes at
most `LONGEST_MIDDLE` operations on a number with as many bits as the name has characters, and the name is read once for
all patterns. Nothing is tried twice, as a regular expression would do.
Source: R. Baeza-Yates, G. Gonnet, A new approach to text searching, CACM 35 (1992), with text and pattern exchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Characters between the first and the last `*` or `?` of a pattern, and of a whole pattern.
LONGEST_MIDDLE = 128
LONGEST_PATTERN = 1024


class Globs:
    """Patterns: `*` stands for any number of characters, `?` for one; no other character is special.

    Case does not count, nor do blanks around name and pattern.
    """

    __slots__ = ("_globs",)

    def __init__(self, patterns: Iterable[str]) -> None:
        self._globs = tuple(_Glob(pattern.strip().casefold()) for pattern in patterns)

    def match(self, text: str) -> bool:
        """Return whether some pattern matches the whole name."""
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
    """Make sure that a pattern is short enough to be compared with each item of the largest call.

    Raises:
        ValueError: it is too long; the text says how long it may be.
    """
    glob = _Glob(pattern.strip().casefold())
    if len(glob.middle) > LONGEST_MIDDLE:
        raise ValueError(
            f"{pattern[:40]!r}… has {len(glob.middle)} characters from its first to its last * or ?, {LONGEST_MIDDLE} "
            "are allowed: shorten it, or use several"
        )
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"{pattern[:40]!r}… has {len(pattern)} characters, {LONGEST_PATTERN} are allowed")


class _Glob:
    """One pattern: the text before its first special character, the text after the last one, and the part between."""

    __slots__ = ("_head", "_shortest", "_tail", "_whole", "middle")

    def __init__(self, pattern: str) -> None:
        special = [index for index, character in enumerate(pattern) if character in "*?"]
        self._whole = pattern if not special else None
        first, last = (special[0], special[-1]) if special else (0, -1)
        self._head, self._tail = pattern[:first], pattern[last + 1 :]
        self._shortest = len(pattern) - pattern.count("*")
        # "" when head and tail decide alone.
        self.middle = pattern[first : last + 1]
        if not self.middle.strip("*"):
            self.middle = ""

    def may_match(self, text: str) -> bool:
        """Return whether a name fits all parts but the middle."""
        if self._whole is not None:
            return text == self._whole
        return len(text) >= self._shortest and text.startswith(self._head) and text.endswith(self._tail)

    def reaches_its_end(self, length: int, places: Mapping[str, int]) -> bool:
        """Return whether the middle fits between head and tail of a name of this length."""
        end = length - len(self._tail)
        # Bit n: the pattern so far may end before character n of the text.
        ends = 1 << len(self._head)
        for character in self.middle:
            if character == "*":
                first = ends & -ends
                if first >> end > 1:
                    return False
                ends = (2 << end) - first  # all positions from the first one up to the tail
            elif character == "?":
                ends <<= 1
            else:
                ends = (ends & places.get(character, 0)) << 1
            if not ends:
                return False
        return bool(ends >> end & 1)


def _places(text: str) -> Mapping[str, int]:
    """Return, for each character of a name, the bits of its positions."""
    places: dict[str, int] = {}
    bit = 1
    for character in text:
        places[character] = places.get(character, 0) | bit
        bit <<= 1
    return places
