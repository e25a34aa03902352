"""The client without `await`, for scripts and notebooks. It runs the asynchronous client in a separate thread."""

from mxgw_client.sync.gateway import Gateway, connect
from mxgw_client.sync.session import Session, Subscription
from mxgw_client.sync.streams import AlarmStream, EventStream

__all__ = ["AlarmStream", "EventStream", "Gateway", "Session", "Subscription", "connect"]
