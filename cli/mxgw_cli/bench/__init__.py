"""The command `mxgw bench`."""
