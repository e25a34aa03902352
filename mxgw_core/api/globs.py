"""Globs: the one matcher for patterns that people write and texts that come from outside.

Matching takes the same number of steps for every text, however it was chosen: all places of the text at which the
pattern so far may end are the bits of one number, and each character of the pattern moves them once. So a match costs
at most `LONGEST_MIDDLE` operations on a number with as many bits as the text has characters, and the text is read once
for all patterns. Nothing is tried twice, as a regular expression would.
Source: R. Baeza-Yates, G. Gonnet, A new approach to text searching, CACM 35 (1992), with text and pattern exchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Characters between the first and the last `*` or `?` of a pattern, and of a whole pattern.
LONGEST_MIDDLE = 128
LONGEST_PATTERN = 1024


class Globs:
    """Patterns in which `*` stands for any characters, none included, and `?` for one; nothing else is special.

    Case does not count, nor do blanks around text and pattern.
    """

    __slots__ = ("_globs",)

    def __init__(self, patterns: Iterable[str]) -> None:
        self._globs = tuple(_Glob(pattern.strip().casefold()) for pattern in patterns)

    def match(self, text: str) -> bool:
        """Return whether some pattern stands for the whole text."""
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
    """Make sure that a pattern is short enough to be asked for each item of the largest call.

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
    """One pattern: the text before its first special character, that behind its last, and what is in between."""

    __slots__ = ("_head", "_shortest", "_tail", "_whole", "middle")

    def __init__(self, pattern: str) -> None:
        special = [index for index, character in enumerate(pattern) if character in "*?"]
        self._whole = pattern if not special else None
        first, last = (special[0], special[-1]) if special else (0, -1)
        self._head, self._tail = pattern[:first], pattern[last + 1 :]
        self._shortest = len(pattern) - pattern.count("*")
        # "" where head and tail alone decide.
        self.middle = pattern[first : last + 1]
        if not self.middle.strip("*"):
            self.middle = ""

    def may_match(self, text: str) -> bool:
        """Return whether all but the middle agrees."""
        if self._whole is not None:
            return text == self._whole
        return len(text) >= self._shortest and text.startswith(self._head) and text.endswith(self._tail)

    def reaches_its_end(self, length: int, places: Mapping[str, int]) -> bool:
        """Return whether the middle fits between head and tail of a text of this length."""
        end = length - len(self._tail)
        # Bit n: the pattern so far may end before the text's character n.
        ends = 1 << len(self._head)
        for character in self.middle:
            if character == "*":
                first = ends & -ends
                if first >> end > 1:
                    return False
                ends = (2 << end) - first  # all from the first of them up to the tail
            elif character == "?":
                ends <<= 1
            else:
                ends = (ends & places.get(character, 0)) << 1
            if not ends:
                return False
        return bool(ends >> end & 1)


def _places(text: str) -> Mapping[str, int]:
    """Return, for each character of a text, the bits of the places where it stands."""
    places: dict[str, int] = {}
    bit = 1
    for character in text:
        places[character] = places.get(character, 0) | bit
        bit <<= 1
    return places
