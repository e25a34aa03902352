"""Alarms found in the address space: whatever has the sub-attribute that is true in alarm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mxgw.v1.commands_pb2 import BROWSE_NODE_KIND_ATTRIBUTE
from mxgw_core.api import InternalSession
from mxgw_core.api.errors import CommandFailed, GatewayError

log = logging.getLogger(__name__)

# A look around must not take for ever on a large plant.
_LONGEST_S = 300.0


async def discover(
    session: InternalSession, below: str, in_alarm: str, at_most: int, found: Callable[[str], object]
) -> None:
    """Call `found` with the reference of each attribute that has a sub-attribute `in_alarm`.

    A backend that cannot be browsed has none.
    """
    count = 0
    waiting = [below]
    name = in_alarm.casefold()
    try:
        async with asyncio.timeout(_LONGEST_S):
            while waiting and count < at_most:
                for node in await session.browse(waiting.pop()):
                    if node.kind == BROWSE_NODE_KIND_ATTRIBUTE and node.name.casefold() == name:
                        found(node.reference[: -len(node.name) - 1])
                        count += 1
                    if node.has_children:
                        waiting.append(node.path)
    except TimeoutError:
        log.warning("looking for alarms took longer than %g s: %d were found so far", _LONGEST_S, count)
    except CommandFailed as error:
        log.info("alarms are not looked for: %s", error.message)
    except GatewayError as error:
        log.debug("looking for alarms ended early, with %d found: %s", count, error.message)
