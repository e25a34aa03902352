"""The command `mxgw service`."""
