"""What only a whole execution shows, booked when it is finished: its units, and who called whom."""

from streams.booking import Book, Chain, Window
from streams.runs import Execution
from streams.units import Unit, observe


def book_structure(book: Book, chain: Chain, execution: Execution, at_us: int) -> None:
    """Book the units and edges of an execution that is finished, at the event time at which that was known.

    Units are no events: one whose series is not told apart is left out, and none makes a series known.
    """
    units, edges = observe(execution)
    for edge in edges:
        book.edge(chain, edge, at_us)
    offset = execution.last_offset
    for unit in units:
        if book.knows(chain, unit.step, unit.component):
            book_unit(book.at(chain, unit.step, unit.component, at_us, offset), unit)


def book_unit(window: Window, unit: Unit) -> None:
    """Add a unit to the window of its context: (tenant, chain, unit.step, unit.component)."""
    window.units += 1
    if not (unit.failed or unit.explained):
        window.clean_units += 1
    if unit.own_us >= 0:
        window.own_us.append(unit.own_us)
    if unit.gap_us >= 0:
        window.gaps_us.append(unit.gap_us)
    for indicator in unit.indicators:
        window.indicated(indicator)
