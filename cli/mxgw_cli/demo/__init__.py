"""The command `mxgw demo`."""
