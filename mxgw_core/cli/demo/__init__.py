"""`mxgw demo`: a gateway of its own, a session, live values. Rendering and counting know nothing of processes."""
