"""The command `mxgw read`."""
