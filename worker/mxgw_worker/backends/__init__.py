"""Backends, which connect a worker to a source: the `Backend` protocol (base.py), and the kinds of backends."""

from mxgw_worker.backends.registry import backend_factory, create_backend

__all__ = ["backend_factory", "create_backend"]
