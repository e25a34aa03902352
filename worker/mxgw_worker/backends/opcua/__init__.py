"""Backend `opcua`: behaves as MXAccess does, on any OPC UA server. It uses the library asyncua (extra
`mxgw[opcua]`).
"""

from .backend import OpcUaBackend

__all__ = ["OpcUaBackend"]
