"""OPC UA as a backend: MXAccess semantics on any OPC UA server, through asyncua (extra `mxgw[opcua]`)."""

from .backend import OpcUaBackend

__all__ = ["OpcUaBackend"]
