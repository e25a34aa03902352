"""The command `mxgw config`."""
