"""The profiles: each decides what the simulator simulates. A profile is one module, which is imported only when it is
used.
"""

from mxgw_worker.backends.sim.profiles._loading import Profile, load_profile

__all__ = ["Profile", "load_profile"]
