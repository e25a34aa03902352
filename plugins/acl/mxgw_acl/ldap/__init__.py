"""Implements the directory of operators with LDAP. Only this package imports ldap3."""

from mxgw_acl.ldap.directory import LdapDirectory

__all__ = ["LdapDirectory"]
