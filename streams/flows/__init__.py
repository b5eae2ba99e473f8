"""Flows as data: one canonical form, its content address, what differs, what depends on what, and the formats of others."""
