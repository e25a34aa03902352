# ruff: noqa: ARG002 # the arguments are part of the protocol, and not used here
"""A base class for backends that lack some methods of MXAccess."""

from __future__ import annotations

from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_NOTIMPL, MxError


class PartialBackend:
    """Every method raises E_NOTIMPL, as a COM object without this method does. A subclass overrides the methods that it
    has.

    `info`, `start` and `stop` are missing here, because every backend has to implement them.
    """

    async def register(self, client_name: str) -> int:
        """Raise E_NOTIMPL; see `Backend.register`."""
        raise _not_implemented("Register")

    async def unregister(self, server_handle: int) -> None:
        """Raise E_NOTIMPL; see `Backend.unregister`."""
        raise _not_implemented("Unregister")

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        """Raise E_NOTIMPL; see `Backend.add_item`."""
        raise _not_implemented("AddItem")

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Raise E_NOTIMPL; see `Backend.add_item2`."""
        raise _not_implemented("AddItem2")

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        """Raise E_NOTIMPL; see `Backend.remove_item`."""
        raise _not_implemented("RemoveItem")

    async def advise(self, server_handle: int, item_handle: int) -> None:
        """Raise E_NOTIMPL; see `Backend.advise`."""
        raise _not_implemented("Advise")

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        """Raise E_NOTIMPL; see `Backend.advise_supervisory`."""
        raise _not_implemented("AdviseSupervisory")

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        """Raise E_NOTIMPL; see `Backend.un_advise`."""
        raise _not_implemented("UnAdvise")

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        """Raise E_NOTIMPL; see `Backend.write`."""
        raise _not_implemented("Write")

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        """Raise E_NOTIMPL; see `Backend.write2`."""
        raise _not_implemented("Write2")

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        """Raise E_NOTIMPL; see `Backend.write_secured`."""
        raise _not_implemented("WriteSecured")

    async def write_secured2(
        self,
        server_handle: int,
        item_handle: int,
        current_user_id: int,
        verifier_user_id: int,
        value: MxValue,
        time_ns: int | None,
    ) -> None:
        """Raise E_NOTIMPL; see `Backend.write_secured2`."""
        raise _not_implemented("WriteSecured2")

    async def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        """Raise E_NOTIMPL; see `Backend.authenticate_user`."""
        raise _not_implemented("AuthenticateUser")

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        """Raise E_NOTIMPL; see `Backend.archestra_user_to_id`."""
        raise _not_implemented("ArchestrAUserToId")

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        """Raise E_NOTIMPL; see `Backend.suspend`."""
        raise _not_implemented("Suspend")

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        """Raise E_NOTIMPL; see `Backend.activate`."""
        raise _not_implemented("Activate")

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """Raise E_NOTIMPL; see `Backend.add_buffered_item`."""
        raise _not_implemented("AddBufferedItem")

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        """Raise E_NOTIMPL; see `Backend.set_buffered_update_interval`."""
        raise _not_implemented("SetBufferedUpdateInterval")


def _not_implemented(method: str) -> MxError:
    return MxError(E_NOTIMPL, f"this backend has no {method}")
