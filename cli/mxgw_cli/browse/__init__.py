"""The command `mxgw browse`."""
