"""`mxgw conformance`: holds clients in all languages alike."""
