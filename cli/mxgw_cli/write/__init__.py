"""The command `mxgw write`."""
