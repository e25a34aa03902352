"""The kinds of backends. Three are built in; any other kind is found by an entry point of group `mxgw.backends`.

Only the requested kind is imported, because a worker has to start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from mxgw_worker.backends.base import Backend, BackendUnavailable

ENTRY_POINT_GROUP = "mxgw.backends"

_BUILT_IN = {
    "sim": ("mxgw_worker.backends.sim", "SimBackend"),
    "opcua": ("mxgw_worker.backends.opcua", "OpcUaBackend"),
    "mxaccess": ("mxgw_worker.backends.mxaccess", "MxAccessBackend"),
}
BUILT_IN_KINDS = frozenset(_BUILT_IN)
# Key: built-in kind. Value: the package that the kind needs, and the extra that installs the package.
_EXTRAS = {"opcua": ("asyncua", "mxgw[opcua]")}


class BackendFactory(Protocol):
    """Makes the backends of one kind. Usually this is the class of the backend."""

    def __call__(self, options: Mapping[str, object]) -> Backend:
        """Return a new backend, or raise BackendUnavailable for options that are wrong."""


def create_backend(kind: str, options: Mapping[str, object]) -> Backend:
    """Return a new backend of a kind, not started yet.

    Raises:
        BackendUnavailable: there is no such kind, a package is missing, or the options are wrong; the text says how to
            fix it.
    """
    return backend_factory(kind)(options)


def backend_factory(kind: str) -> BackendFactory:
    """Import the modules that a kind needs, and return the factory of the kind.

    Raises:
        BackendUnavailable: as `create_backend`, except for wrong options.
    """
    if kind not in _BUILT_IN:
        return _installed(kind)
    module, name = _BUILT_IN[kind]
    try:
        return cast("BackendFactory", getattr(import_module(module), name))
    except ModuleNotFoundError as error:
        raise _missing_package(kind, error) from error


def _missing_package(kind: str, error: ModuleNotFoundError) -> Exception:
    package, extra = _EXTRAS.get(kind, ("", ""))
    if package and (error.name or "").split(".")[0] == package:
        return BackendUnavailable(f"backend {kind!r} needs the package {package}: pip install '{extra}'")
    return error


def _installed(kind: str) -> BackendFactory:
    """Return the factory of a kind that another distribution offers by an entry point."""
    from difflib import get_close_matches
    from importlib.metadata import entry_points

    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    entry = offered.get(kind)
    if entry is None:
        known = sorted({*_BUILT_IN, *offered})
        close = get_close_matches(kind, known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise BackendUnavailable(
            f"there is no backend kind {kind!r}; {hint}known kinds: {', '.join(known)}. Others come from installed "
            f"packages with an entry point of group {ENTRY_POINT_GROUP!r}"
        )
    try:
        return cast("BackendFactory", entry.load())
    except Exception as error:
        origin = entry.dist.name if entry.dist is not None else entry.value
        raise BackendUnavailable(f"backend {kind!r} of {origin} cannot be imported: {error}") from error
