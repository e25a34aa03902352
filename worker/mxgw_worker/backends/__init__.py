"""What a worker talks to: the `Backend` protocol (base.py) and the kinds that exist."""

from mxgw_worker.backends.registry import backend_factory, create_backend

__all__ = ["backend_factory", "create_backend"]
