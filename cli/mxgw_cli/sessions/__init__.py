"""The command `mxgw sessions`."""
