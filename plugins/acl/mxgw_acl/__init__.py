"""Plugin `acl`: API keys and their rights, logins of operators with the help of an LDAP directory, and an audit log."""

from mxgw_acl.plugin import AclPlugin
from mxgw_acl.settings import AclSettings

__all__ = ["AclPlugin", "AclSettings"]
