"""Sends many operations in few requests. An operation that the server or the library cannot take fails alone."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from asyncua import ua

from .limits import operations_done
from .link import Link, check_session
from .session import NotSent, UnreadableAnswer

log = logging.getLogger(__name__)

_Entry = TypeVar("_Entry")
_Result = TypeVar("_Result")
_codes = ua.StatusCodes

# Errors of a whole request after which the server has carried out nothing of it. Smaller requests can succeed.
_NOTHING_DONE = frozenset(
    {
        _codes.BadTooManyOperations,
        _codes.BadRequestTooLarge,
        _codes.BadTcpMessageTooLarge,
        _codes.BadDecodingError,
    }
)
# Errors of a whole request that can also come after the server has carried it out.
_NO_ANSWER = frozenset(
    {
        _codes.BadResponseTooLarge,
        _codes.BadEncodingLimitsExceeded,
        _codes.BadEncodingError,
        _codes.BadInternalError,
        _codes.BadUnexpectedError,
    }
)
# How many requests of one call can fail before the rest is not tried in halves any more. Finding one culprit among 1000
# operations takes 10.
_MAX_FAULTS = 200
# How many single operations in a row can be one too many before the rest is not tried.
_MAX_ALONE = 3


@dataclass(frozen=True, slots=True)
class Refused:
    """The result of an operation whose request failed. `sent` is False when the library could not encode it, or when it
    alone is larger than the server allows.
    """

    code: int
    sent: bool = True


async def in_batches(
    link: Link,
    kind: str,
    entries: Sequence[_Entry],
    send: Callable[[Sequence[_Entry]], Awaitable[Sequence[_Result]]],
    *,
    repeatable: bool = True,
) -> list[_Result | Refused]:
    """Return one result per entry, in order. `send` sends one request and returns one result for each of its entries.

    `kind` is the field of `Limits` with the largest number of entries of one request. A request that fails as a whole
    is sent again in halves, until those entries that make it fail stand alone. When `repeatable` is False, this is not
    done after errors that do not say whether the server has carried out the request.

    Raises:
        ConnectionError, TimeoutError: the connection failed.
        ua.UaStatusCodeError: the session has ended.
    """
    results: list[_Result | Refused] = []
    faults = refused_alone = 0
    # The parts that still have to be sent, the next one last: each by its start and its end in `entries`.
    parts = [(0, len(entries))] if entries else []
    while parts:
        start, end = parts.pop()
        limit = max(1, getattr(link.limits, kind))
        if end - start > limit:
            parts += [(start + limit, end), (start, start + limit)]
            continue
        part = entries[start:end]
        try:
            answers = await send(part)
            if len(answers) != len(part):
                raise UnreadableAnswer("the server did not answer each operation")  # noqa: TRY301 - the same as below
            done = operations_done(answers)
            if done < len(part):
                link.limits.lower(kind, 2 * done or len(part))
                parts.append((start + done, end))
            results += answers[:done]
            refused_alone = 0
            continue
        except NotSent as error:
            refused, again = Refused(error.code, sent=False), True
        except UnreadableAnswer:
            refused, again = Refused(_codes.BadDecodingError), repeatable
            faults += 1
        except ua.UaStatusCodeError as error:
            check_session(error)
            refused = Refused(error.code)
            again = error.code in _NOTHING_DONE or (repeatable and error.code in _NO_ANSWER)
            faults += 1
            if error.code == _codes.BadTooManyOperations:
                if len(part) > 1:
                    link.limits.lower(kind, len(part))
                    log.info("the server takes at most %d operations (%s)", getattr(link.limits, kind), kind)
                else:
                    # This was not about the number of operations, so nothing was learnt about it.
                    link.limits.restore(kind)
                    refused_alone += 1
                    if refused_alone > _MAX_ALONE:
                        return results + [refused] * (len(entries) - start)
        if len(part) > 1 and again and faults <= _MAX_FAULTS:
            middle = (start + end) // 2
            parts += [(middle, end), (start, middle)]
        else:
            results += [refused] * len(part)
    return results
