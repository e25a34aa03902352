"""Connects a command to a gateway and gives it a session. Every error becomes a `CliFailure` with a sentence."""

from __future__ import annotations

import getpass
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import mxgw_client
from mxgw_cli.options import GatewayTarget, api_key_from_environment
from mxgw_cli.shell import CliFailure, ExitCode
from mxgw_client import errors
from mxgw_core.printable import printable
from mxgw_worker.platform import current_user
from mxgw_worker.platform.private_files import read_private

LEASE_S = 120.0

_HINTS: dict[type[errors.MxgwClientError], str] = {
    errors.Unauthenticated: "Give the API key with --api-key-file, or as MXGWCLI_API_KEY in the environment.",
    errors.SessionNotFound: "`mxgw sessions` lists those that are open.",
    errors.SubscriberExists: "The session has its subscriber; the gateway's settings can allow more (fan-out).",
    errors.WorkerStartFailed: "Run `mxgw doctor` where the gateway runs.",
}


@asynccontextmanager
async def connected(where: GatewayTarget) -> AsyncIterator[mxgw_client.Gateway]:
    """Connect to a gateway, and yield it while the block runs.

    Raises:
        CliFailure: the gateway cannot be reached (exit code 3), the options are wrong (exit code 2), or the gateway
            refuses a call (exit code 1).
    """
    with as_failures():
        tls: mxgw_client.Tls | bool = False
        if where.ca is not None:
            tls = mxgw_client.Tls(where.ca, where.certificate, where.private_key)
        try:
            gateway = mxgw_client.connect(where.target, api_key=_api_key(where), tls=tls, timeout_s=where.timeout_s)
        except ValueError as error:
            raise CliFailure(str(error), exit_code=ExitCode.USAGE) from None
        await _refuse_missing_socket(where.target)
        async with gateway:
            yield gateway


async def _refuse_missing_socket(target: str) -> None:
    # gRPC does not fail when the socket file does not exist, but tries again until the timeout.
    path = Path(target.removeprefix("unix:"))
    if target.startswith("unix:") and not path.exists():  # noqa: ASYNC240 - one stat of a local path
        raise CliFailure(
            f"no gateway at {target}: there is no such socket",
            hint="Start one with `mxgw serve --listen " + target + "`, or correct --gateway.",
            exit_code=ExitCode.UNREACHABLE,
        )


@contextmanager
def as_failures() -> Iterator[None]:
    """Turn errors of the client library into failures of the command line."""
    try:
        yield
    except errors.MxgwClientError as error:
        raise failure_of(error) from None


def failure_of(error: errors.MxgwClientError) -> CliFailure:
    """Return the failure for an error of the client library, with exit code and hint."""
    message = printable(str(error), 1000)
    if isinstance(error, errors.GatewayUnreachable | errors.NotAGateway):
        return CliFailure(
            message,
            hint="`mxgw serve` starts one; --gateway or MXGWCLI_GATEWAY names another.",
            exit_code=ExitCode.UNREACHABLE,
        )
    if isinstance(error, errors.ConnectionOptionError):
        return CliFailure(message, exit_code=ExitCode.USAGE)
    hint = next((text for kind, text in _HINTS.items() if isinstance(error, kind)), "")
    return CliFailure(message, hint=hint)


def _api_key(where: GatewayTarget) -> mxgw_client.ApiKey | None:
    if where.api_key:
        return mxgw_client.ApiKey(where.api_key)
    if where.api_key_file is not None:
        try:
            text = read_private(where.api_key_file).decode("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise CliFailure(f"--api-key-file {where.api_key_file}: {reason}", exit_code=ExitCode.USAGE) from None
        if not text:
            raise CliFailure(f"--api-key-file {where.api_key_file} is empty", exit_code=ExitCode.USAGE)
        return mxgw_client.ApiKey(text)
    key = api_key_from_environment()
    return None if key is None else mxgw_client.ApiKey(key.strip())


async def find_session(gateway: mxgw_client.Gateway, text: str) -> mxgw_client.SessionInfo:
    """Return the session whose id is `text`, or the only session whose id begins with `text`.

    Sessions that ended lately are found too.

    Raises:
        CliFailure: there is no such session, or several session ids begin with `text`.
    """
    sessions = [session async for session in gateway.sessions(include_ended=True)]
    exact = [session for session in sessions if session.session_id == text]
    found = exact or [session for session in sessions if session.session_id.startswith(text)]
    if len(found) == 1:
        return found[0]
    shown = printable(text, 80)
    if not found:
        raise CliFailure(f"no session {shown}", hint="`mxgw sessions --all` lists them, with those that ended lately.")
    raise CliFailure(f"{len(found)} sessions begin with {shown}", hint="Give more of the id.")


@asynccontextmanager
async def session_of(
    gateway: mxgw_client.Gateway, *, command: str, backend: str = "", session_id: str = ""
) -> AsyncIterator[mxgw_client.Session]:
    """Attach to the session whose id begins with `session_id`, and yield it.

    When `session_id` is "", a new session is opened and yielded, and closed at the end of the block.
    """
    name = client_name(command)
    if session_id:
        found = await find_session(gateway, session_id)
        session = gateway.attach_session(found.session_id, client_name=name)
    else:
        # The lease is short, so that the session ends soon when the command is killed.
        session = gateway.open_session(client_name=name, backend=backend, lease_s=LEASE_S)
    async with session:
        yield session


def client_name(command: str) -> str:
    """Return the client name that operators see for this command, for example `mxgw stream, anna@desk12`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # the user has no name; on Windows getuser needs an environment variable
        user = current_user()
    return printable(f"mxgw {command}, {user}@{socket.gethostname()}", 128)


async def walk(
    session: mxgw_client.Session, path: str, depth: int, *, include_metadata: bool = False
) -> AsyncIterator[mxgw_client.BrowseNode]:
    """Yield the nodes down to `depth` levels below `path`; parents are yielded before their children."""
    waiting = deque([(path, 1)])
    while waiting:
        path, level = waiting.popleft()
        async for node in session.browse(path, include_metadata=include_metadata):
            yield node
            if node.has_children and level < depth:
                waiting.append((node.path, level + 1))
