"""One connection to the server, for the operations that use it: its session, namespaces and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asyncua import ua

from .limits import Limits
from .session import Session

# The namespace with index 0 on every server.
NAMESPACE_0 = "http://opcfoundation.org/UA/"
NAMESPACE_ARRAY = ua.NodeId(ua.ObjectIds.Server_NamespaceArray, 0)

_SESSION_GONE = frozenset(
    {
        ua.StatusCodes.BadSessionIdInvalid,
        ua.StatusCodes.BadSessionClosed,
        ua.StatusCodes.BadSessionNotActivated,
        ua.StatusCodes.BadSecureChannelIdInvalid,
        ua.StatusCodes.BadSecureChannelClosed,
        ua.StatusCodes.BadConnectionClosed,
    }
)


def session_ended(error: ua.UaStatusCodeError) -> bool:
    """Return True when the error means that the session, or its connection, has ended."""
    return error.code in _SESSION_GONE


def check_session(error: ua.UaStatusCodeError) -> None:
    """Raise the error again when it means that the session has ended, so that the connection is opened again."""
    if session_ended(error):
        raise error


class Link:
    """One connection to the server. An operation of several requests sends all of them through one link.

    Node ids are numbers of the server's namespace table, and a restarted server can number its namespaces differently.
    So a node id that was found on one link must not be used on the next one.
    """

    def __init__(self, session: Session, namespaces: list[str], limits: Limits, end: Callable[[], None]) -> None:
        self._session = session
        self._end = end
        self.namespaces = namespaces
        self.limits = limits
        self.up = True
        # Held while an answer of Browse is read to its end: a server may drop the rest of an unfinished answer when the
        # session browses on.
        self.browsing = asyncio.Lock()

    @property
    def session(self) -> Session:
        """The library's session object, which sends requests.

        Raises:
            ConnectionError: this connection was lost, even if there is a new one.
        """
        if not self.up:
            raise ConnectionError("the OPC UA server is not connected")
        return self._session

    async def read_namespaces(self) -> None:
        """Read the server's namespaces again: a running server can get further ones.

        Raises:
            ConnectionError: the server numbers its namespaces differently now, so that everything found on this link
                is wrong. The link is down then.
            TimeoutError, ua.UaError: the server did not answer.
        """
        answers = await self.session.read_attributes([NAMESPACE_ARRAY], ua.AttributeIds.Value)
        namespaces = namespaces_of(answers[0]) if answers else []
        if not namespaces:
            return
        if namespaces[: len(self.namespaces)] != self.namespaces:
            self.up = False
            self._end()
            raise ConnectionError("the server has numbered its namespaces anew")
        self.namespaces = namespaces


def namespaces_of(answer: ua.DataValue) -> list[str]:
    """Return the namespaces in a server's answer; none when it has no such list."""
    value = answer.Value.Value if answer.Value is not None else None
    return [str(uri or "") for uri in value] if isinstance(value, list) else []
