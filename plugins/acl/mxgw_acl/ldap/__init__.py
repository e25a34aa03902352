"""The directory of operators over LDAP; the only place where ldap3 is imported."""

from mxgw_acl.ldap.directory import LdapDirectory

__all__ = ["LdapDirectory"]
