"""A small random source. It gives the same numbers on every machine and Python version, and is imported faster than
`random`.
"""

from __future__ import annotations

_MASK = 2**64 - 1


class Noise:
    """The generator xorshift64* with a seed.
    Source: G. Marsaglia, Xorshift RNGs, 2003; S. Vigna, 2014 (the multiplier).
    """

    def __init__(self, seed: int) -> None:
        self._state = (seed * 0x9E3779B97F4A7C15 + 0x2545F4914F6CDD1D) & _MASK or 1

    def uniform(self) -> float:
        """Return a number from 0 (included) to 1 (excluded)."""
        x = self._state
        x ^= x >> 12
        x ^= (x << 25) & _MASK
        x ^= x >> 27
        self._state = x
        return ((x * 0x2545F4914F6CDD1D & _MASK) >> 11) / 2**53

    def around(self, spread: float) -> float:
        """Return a number between minus `spread` and `spread`. Numbers near 0 are the most frequent."""
        return (self.uniform() + self.uniform() - 1.0) * spread
