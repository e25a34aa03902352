"""Finds the cause in exception groups, as task groups raise them.

The errors can be those of a plugin, whose `__class__` can be a property that raises. So only their real types are read.
"""

from __future__ import annotations


def innermost(error: BaseException) -> BaseException:
    """Return the first error in a group; when that error is a group too, the first error in that group, and so on.

    An error that is no group is returned itself.
    """
    while issubclass(type(error), BaseExceptionGroup):
        assert isinstance(error, BaseExceptionGroup)
        error = error.exceptions[0]
    return error


def only_error(error: BaseException) -> BaseException:
    """Unwrap exception groups that hold a single error; return a larger group unchanged."""
    while issubclass(type(error), BaseExceptionGroup):
        assert isinstance(error, BaseExceptionGroup)
        if len(error.exceptions) != 1:
            break
        error = error.exceptions[0]
    return error
