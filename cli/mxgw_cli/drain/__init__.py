"""The command `mxgw drain`."""
