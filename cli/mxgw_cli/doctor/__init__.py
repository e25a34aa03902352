"""The command `mxgw doctor`."""
