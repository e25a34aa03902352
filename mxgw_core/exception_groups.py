"""Finds the cause in exception groups, as task groups raise them.

The class of an error is found with `type`. Unlike `isinstance`, it does not read `__class__` of the error, which can be
code of a plugin.
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
