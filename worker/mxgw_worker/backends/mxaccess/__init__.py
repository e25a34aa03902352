"""The backend for MXAccess itself, the COM object of AVEVA System Platform."""

from mxgw_worker.backends.mxaccess.backend import MxAccessBackend

__all__ = ["MxAccessBackend"]
