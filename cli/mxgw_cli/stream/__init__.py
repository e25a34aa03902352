"""The command `mxgw stream`."""
