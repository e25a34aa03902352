"""A gateway that a command starts for itself, where other users of the machine could connect to it."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from rich.console import Console

from mxgw_cli import one_key
from mxgw_cli.children import temporary_directory
from mxgw_cli.doctor import backends
from mxgw_cli.doctor.report import Outcome, failed, ok, show_check
from mxgw_cli.one_key import OwnGateway, own_gateway
from mxgw_client import connect, errors
from mxgw_core.config.models import Settings
from mxgw_worker.platform import exposure


@pytest.fixture(autouse=True)
def _ports_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_key, "HAS_UNIX_SOCKETS", False)


@pytest_asyncio.fixture
async def own() -> AsyncIterator[OwnGateway]:
    with temporary_directory("mxgw-test-") as directory:
        async with own_gateway(directory, {}) as started:
            yield started


@pytest.mark.asyncio
async def test_a_gateway_on_a_port_accepts_the_command_that_started_it_and_nobody_else(own: OwnGateway) -> None:
    assert own.target.startswith("127.0.0.1:")
    for key in (None, "mxgw_wrong"):
        with pytest.raises(errors.Unauthenticated, match="by the command that started it"):
            await connect(own.target, api_key=key, timeout_s=20).open()

    async with connect(own.target, api_key=own.api_key, timeout_s=20) as gateway, gateway.open_session() as session:
        assert await session.ping()

    assert own.api_key not in repr(own)

    path = own.key_file()

    assert path.read_text() == own.api_key
    assert exposure(path) == ""
    assert own.api_key not in own.process.log.read_text()


@pytest.mark.asyncio
async def test_the_doctors_gateway_with_the_real_backends_needs_its_key_too() -> None:
    async with backends.private_gateway(Settings()) as (target, key):
        with pytest.raises(errors.Unauthenticated):
            await connect(target, timeout_s=20).open()
        async with connect(target, api_key=key, timeout_s=20) as gateway:
            assert await gateway.info()


def test_a_unix_socket_in_a_private_directory_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_key, "HAS_UNIX_SOCKETS", True)

    assert not one_key.needs_key(one_key.own_address(Path("/run")))


def test_temporary_directories_are_private_and_removed() -> None:
    with temporary_directory("mxgw-test-") as directory:
        assert exposure(directory) == ""

    assert not directory.exists()


@pytest.mark.parametrize(("encoding", "marks"), [("utf-8", ["✓", "✗", "→"]), ("cp1252", ["+", "x", "->"])])
def test_the_doctors_marks_differ_in_every_encoding(encoding: str, marks: list[str]) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=stream, width=80)
    for check in (ok("A", "one", ""), failed("A", "two", "", "do it")):
        assert check.outcome in Outcome
        show_check(console, check, "A")
    stream.seek(0)

    assert [line.split()[0] for line in stream.read().splitlines()] == marks
