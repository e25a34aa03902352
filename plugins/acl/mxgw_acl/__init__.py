"""Plugin `acl`: who may open, read, write, watch. API keys, directory logins of operators, an audit log."""

from mxgw_acl.plugin import AclPlugin
from mxgw_acl.settings import AclSettings

__all__ = ["AclPlugin", "AclSettings"]
