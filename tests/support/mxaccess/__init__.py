"""Doubles of MXAccess, and what lays out its values in memory."""
