"""The command `mxgw plugins`."""
