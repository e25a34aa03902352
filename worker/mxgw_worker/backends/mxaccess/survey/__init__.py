"""Finds out on a machine with MXAccess what docs/reference/mxaccess.md leaves open. `mxgw doctor --mxaccess` runs it.

It runs in the Python of the workers, as a process of its own: `python -I -m mxgw_worker.backends.mxaccess.survey`.
"""
