"""The command `mxgw alarms`."""
