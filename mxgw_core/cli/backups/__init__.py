"""Backup and restore of what a gateway keeps on the disk."""
