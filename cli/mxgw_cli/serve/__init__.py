"""The command `mxgw serve`."""
