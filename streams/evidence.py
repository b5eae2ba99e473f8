"""What an execution keeps beyond names and numbers: further parents, error messages, log statements.

Only their sum is bounded, so that one step may bring many. What has no room any more is left out; it changes no count.
"""

from streams.runs import Execution, Step

PARENT = 256
"""What a parent beyond a step's first counts for, in characters: as long as its names can be."""


def has_room(execution: Execution, text: str, limit: int) -> bool:
    """Return whether a text may be kept, and count it if so."""
    if execution.evidence + len(text) > limit:
        return False
    execution.evidence += len(text)
    return True


def keep_within(execution: Execution, step: Step, parents: bool, message: bool, limit: int) -> bool:
    """Cut what a step has just brought, its parents or its message, to what there is room for; return whether all was kept."""
    kept = True
    if parents and len(step.parents) > 1:
        room = 1 + max(0, limit - execution.evidence) // PARENT
        kept = len(step.parents) <= room
        step.parents = step.parents[:room]
        execution.evidence += PARENT * (len(step.parents) - 1)
    if message and not has_room(execution, step.error_message, limit):
        kept, step.error_message = False, ""
    return kept
