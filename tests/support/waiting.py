"""Waits for a condition of which no event is sent: the function that the authors of plugins have too."""

from mxgw_core.testing import until

__all__ = ["until"]
