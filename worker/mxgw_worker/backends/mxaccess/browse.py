"""Lists attributes. MXAccess has no call for it, but each object has an attribute with the names of all of them.
Source: docs/reference/mxaccess.md#references.

Which objects there are is in the Galaxy's database, which MXAccess does not reach. `ObjectList` is what a reader of it
would implement; there is none, because nothing of the database is known here that a test could be made of. The option
`objects` names objects instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from mxgw.convert import is_ok
from mxgw.v1.commands_pb2 import BROWSE_NODE_KIND_ATTRIBUTE, BROWSE_NODE_KIND_OBJECT, BrowseNode
from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_FAIL, E_INVALIDARG, MxError
from mxgw_worker.backends.mxaccess.com import Com
from mxgw_worker.backends.mxaccess.events import Events
from mxgw_worker.backends.mxaccess.watch import is_pending

# A fresh client gets its first value after 3 to 8 s (docs/reference/mxaccess.md#first-values).
_ANSWER_S = 30.0

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

    def __init__(self, objects: ObjectList) -> None:
        self._objects = objects
        self._answer_s = _ANSWER_S
        self._com: Com | None = None
        self._server = 0
        self._asked: dict[int, asyncio.Future[MxValue]] = {}

    def register(self, com: Com, events: Events) -> None:
        """Register with the object. Call this in the apartment, before anything else."""
        self._com = com
        self._server = events.own_server(com, "mxgw browse", self._changed)

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
        com, server = self._com, self._server
        assert com is not None
        answer: asyncio.Future[MxValue] = asyncio.get_running_loop().create_future()
        item: int = await in_apartment("AddItem", lambda: com.add_item(server, f"{tag_name}._Attributes"))
        self._asked[item] = answer
        try:
            await in_apartment("AdviseSupervisory", lambda: com.advise_supervisory(server, item))
            try:
                async with asyncio.timeout(self._answer_s):
                    value = await answer
            except TimeoutError:
                raise MxError(
                    E_FAIL, f"{tag_name!r} has not named its attributes within {self._answer_s:g} s"
                ) from None
        finally:
            del self._asked[item]
            await in_apartment("RemoveItem", lambda: _remove(com, server, item))
        return list(value.array.strings.elements)

    def _changed(self, item_handle: int, value: MxValue, _quality: int, statuses: tuple[MxStatus, ...]) -> None:
        answer = self._asked.get(item_handle)
        if answer is None or answer.done() or is_pending(statuses):
            return
        if is_ok(statuses):
            answer.set_result(value)
        else:
            answer.set_exception(
                MxError(E_INVALIDARG, f"there is no object of this name to browse (detail {statuses[0].raw_detail})")
            )


def _remove(com: Com, server: int, item: int) -> None:
    com.un_advise(server, item)
    com.remove_item(server, item)
