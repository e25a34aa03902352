# ruff: noqa: ARG002 # the arguments are part of the protocol, and not used here
"""A base class for backends that lack some methods of MXAccess."""

from __future__ import annotations

from mxgw.v1.values_pb2 import MxStatus, MxValue
from mxgw_worker.backends.base import E_NOTIMPL, MxError


class PartialBackend:
    """Every method raises E_NOTIMPL, as a COM object without it would; subclasses override the methods they have.

    `info`, `start` and `stop` are missing here, because every backend has to implement them.
    """

    async def register(self, client_name: str) -> int:
        """See `Backend`."""
        raise _not_implemented("Register")

    async def unregister(self, server_handle: int) -> None:
        """See `Backend`."""
        raise _not_implemented("Unregister")

    async def add_item(self, server_handle: int, item_definition: str) -> int:
        """See `Backend`."""
        raise _not_implemented("AddItem")

    async def add_item2(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """See `Backend`."""
        raise _not_implemented("AddItem2")

    async def remove_item(self, server_handle: int, item_handle: int) -> None:
        """See `Backend`."""
        raise _not_implemented("RemoveItem")

    async def advise(self, server_handle: int, item_handle: int) -> None:
        """See `Backend`."""
        raise _not_implemented("Advise")

    async def advise_supervisory(self, server_handle: int, item_handle: int) -> None:
        """See `Backend`."""
        raise _not_implemented("AdviseSupervisory")

    async def un_advise(self, server_handle: int, item_handle: int) -> None:
        """See `Backend`."""
        raise _not_implemented("UnAdvise")

    async def write(self, server_handle: int, item_handle: int, value: MxValue, user_id: int) -> None:
        """See `Backend`."""
        raise _not_implemented("Write")

    async def write2(
        self, server_handle: int, item_handle: int, value: MxValue, time_ns: int | None, user_id: int
    ) -> None:
        """See `Backend`."""
        raise _not_implemented("Write2")

    async def write_secured(
        self, server_handle: int, item_handle: int, current_user_id: int, verifier_user_id: int, value: MxValue
    ) -> None:
        """See `Backend`."""
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
        """See `Backend`."""
        raise _not_implemented("WriteSecured2")

    async def authenticate_user(self, server_handle: int, user: str, password: str) -> int:
        """See `Backend`."""
        raise _not_implemented("AuthenticateUser")

    async def archestra_user_to_id(self, server_handle: int, user_guid: str) -> int:
        """See `Backend`."""
        raise _not_implemented("ArchestrAUserToId")

    async def suspend(self, server_handle: int, item_handle: int) -> MxStatus:
        """See `Backend`."""
        raise _not_implemented("Suspend")

    async def activate(self, server_handle: int, item_handle: int) -> MxStatus:
        """See `Backend`."""
        raise _not_implemented("Activate")

    async def add_buffered_item(self, server_handle: int, item_definition: str, item_context: str) -> int:
        """See `Backend`."""
        raise _not_implemented("AddBufferedItem")

    async def set_buffered_update_interval(self, server_handle: int, interval_ms: int) -> None:
        """See `Backend`."""
        raise _not_implemented("SetBufferedUpdateInterval")


def _not_implemented(method: str) -> MxError:
    return MxError(E_NOTIMPL, f"this backend has no {method}")
