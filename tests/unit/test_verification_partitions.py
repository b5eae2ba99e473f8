"""What source partitions led to, each by itself, adds up to what they led to together."""

from infra.simulator import Config, Fault, Simulation, definitions
from infra.simulator.recorder import Recorder
from infra.verification.edges import EdgeWindows, merge_edges
from infra.verification.oracle import Oracle
from infra.verification.windows import Book
from streams.events import decode_chunk
from streams.limits import Limits
from streams.rules import RuleBook

LIMITS = Limits(window_us=500_000, lateness_us=100_000)
FAULTS = (Fault("error_burst", "database-service", 0.5, 1.0), Fault("silence", "central-hub", 1.0, 1.0), Fault("clock_skew", "api-gateway", 0, 2))


def partitions() -> list[list[bytes]]:
    """A run's events, an execution's all in one partition."""
    recorder = Recorder()
    Simulation(Config(50.0, 3.0, 4, FAULTS, 0.0, 1_750_000_000_000_000), recorder).run()
    split: list[list[bytes]] = [[], []]
    for key, value in recorder.events:
        split[sum(key) % 2].append(value)
    return split


def fold(number: int, values: list[bytes], book: Book, edges: EdgeWindows) -> None:
    oracle = Oracle("events", number, RuleBook(definitions()), LIMITS, book, edges, len(values) - 50)
    for offset, event in enumerate(decode_chunk(values).events):
        oracle.apply(offset, getattr(event, "time_unix_us", 0), event)
    oracle.end()


def test_books_and_edges_of_partitions_add_up() -> None:
    together, edges = Book(LIMITS), EdgeWindows()
    added, edges_added = Book(LIMITS), EdgeWindows()
    for number, values in enumerate(partitions()):
        fold(number, values, together, edges)
        own, own_edges = Book(LIMITS), EdgeWindows()
        fold(number, values, own, own_edges)
        added.add(own)
        merge_edges(edges_added, own_edges)
    assert added.windows == together.windows
    assert edges_added == edges
    assert any(totals.affected_executions > 1 and totals.samples == {} for totals in added.windows.values())
    assert any(totals.samples for totals in added.windows.values())
    assert any(totals.under_way for totals in added.windows.values())
