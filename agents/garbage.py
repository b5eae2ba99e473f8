"""How seldom a worker that keeps much looks for garbage."""

import gc

GC_ALLOCATIONS = 200_000
"""Containers made and not freed before the youngest are looked through; the default is 700."""


def spare_collections() -> None:
    """Have the garbage collector look seldom: what the worker keeps are trees, which reference counts free.

    With the default thresholds it walks through every remembered execution again and again: a quarter of the
    processor. Cycles, which only errors and libraries make, are still found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 50, 100)
