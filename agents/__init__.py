"""Thin shells, one per process or stage: take a batch, call `streams`, send, settle."""
