"""Finds the cause in exception groups, as task groups raise them."""

from __future__ import annotations


def innermost(error: BaseException) -> BaseException:
    """Return the first error in a group; when that error is a group too, the first error in that group, and so on.

    An error that is no group is returned itself.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def only_error(error: BaseException) -> BaseException:
    """Unwrap exception groups that hold a single error; return a larger group unchanged."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
