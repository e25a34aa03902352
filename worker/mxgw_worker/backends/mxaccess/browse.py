"""Lists attributes. MXAccess has no call for it, but each object has an attribute with the names of all of them.
Source: docs/reference/mxaccess.md#references.

Which objects there are is in the Galaxy's database, which MXAccess does not reach. `ObjectList` is what a reader of it
would implement; there is none, because nothing of the database is known here that a test could be made of. The option
`objects` names objects instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from mxgw.convert import is_ok
from mxgw.v1.commands_pb2 import BROWSE_NODE_KIND_ATTRIBUTE, BROWSE_NODE_KIND_OBJECT, BrowseNode
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, MxError
from mxgw_worker.backends.mxaccess.com import Com
from mxgw_worker.backends.mxaccess.events import Events
from mxgw_worker.backends.mxaccess.watch import is_initialising

# A fresh client gets its first value after 3 to 8 s (docs/reference/mxaccess.md#first-values). The session's other
# calls wait meanwhile.
_ANSWER_S = 15.0

InApartment = Callable[[str, Callable[[], Any]], Awaitable[Any]]


class ObjectList(Protocol):
    """Knows which objects there are."""

    async def at_root(self) -> Sequence[BrowseNode]:
        """Return the nodes at the root. The path of a node that is an object is its tag name.

        Raises:
            MxError: they cannot be listed.
        """


class NamedObjects:
    """Implements `ObjectList` with tag names that somebody has written down."""

    def __init__(self, tag_names: Sequence[str]) -> None:
        self._tag_names = tag_names

    async def at_root(self) -> Sequence[BrowseNode]:
        if not self._tag_names:
            raise MxError(
                E_INVALIDARG,
                "MXAccess cannot list objects. Browse an object by its tag name, or name objects in the option"
                " 'objects' of the backend",
            )
        return [
            BrowseNode(name=name, path=name, kind=BROWSE_NODE_KIND_OBJECT, has_children=True)
            for name in self._tag_names
        ]


class AttributeBrowser:
    """Asks objects for the names of their attributes, under a server handle of its own."""

    def __init__(self, objects: ObjectList, com: Com, events: Events) -> None:
        self._objects = objects
        self._answer_s = _ANSWER_S
        self._com = com
        self._events = events
        # Of the apartment: 0 until an object was asked.
        self._server = 0
        self._asked: dict[int, asyncio.Future[MxValue]] = {}

    async def browse(self, parent: str, in_apartment: InApartment) -> Sequence[BrowseNode]:
        """Return the list of objects for "", otherwise the attributes of an object.

        Raises:
            MxError: there is no such object, or objects cannot be listed.
        """
        if not parent:
            return await self._objects.at_root()
        names = await self._attributes(parent, in_apartment)
        return [
            BrowseNode(
                name=name, path=f"{parent}.{name}", reference=f"{parent}.{name}", kind=BROWSE_NODE_KIND_ATTRIBUTE
            )
            for name in names
        ]

    async def _attributes(self, tag_name: str, in_apartment: InApartment) -> Sequence[str]:
        answer: asyncio.Future[MxValue] = asyncio.get_running_loop().create_future()
        item: int = await in_apartment("AddItem", lambda: self._add(tag_name))
        self._asked[item] = answer
        try:
            await in_apartment("Advise", lambda: self._com.advise(self._server, item))
            try:
                async with asyncio.timeout(self._answer_s):
                    value = await answer
            except TimeoutError:
                raise MxError(
                    E_FAIL, f"{tag_name!r} has not named its attributes within {self._answer_s:g} s"
                ) from None
        finally:
            del self._asked[item]
            await in_apartment("RemoveItem", lambda: self._remove(item))
        return list(value.array.strings.elements)

    def _add(self, tag_name: str) -> int:
        if not self._server:
            self._server = self._events.own_server(self._com, "mxgw browse", self._changed)
        item = self._com.add_item(self._server, f"{tag_name}._Attributes")
        # Known from now on, so that the end of the session removes it when nobody waits for the answer any more.
        self._events.items.add((self._server, item))
        self._events.advised.add((self._server, item))
        return item

    def _remove(self, item: int) -> None:
        key = self._server, item
        with suppress(MxError):  # it was not advised
            self._com.un_advise(*key)
        self._com.remove_item(*key)
        self._events.items.discard(key)
        self._events.advised.discard(key)

    def _changed(self, item_handle: int, value: MxValue, quality: int, statuses: tuple[MxStatus, ...]) -> None:
        answer = self._asked.get(item_handle)
        if answer is None or answer.done() or is_initialising(quality, statuses):
            return
        if is_ok(statuses):
            answer.set_result(value)
        else:
            answer.set_exception(
                MxError(E_INVALIDARG, f"there is no object of this name to browse (detail {statuses[0].raw_detail})")
            )
