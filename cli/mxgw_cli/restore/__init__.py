"""The command `mxgw restore`."""
