"""The command `mxgw backup`."""
