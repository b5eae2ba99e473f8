"""`flowchain import spans`: real traces (OTLP/JSON, TrainTicket's CSV layout) as chain events."""

from connectors.spans.events import Event
from connectors.spans.model import Options, SpanImportError
from connectors.spans.publish import Summary, Timeline, import_spans, load, publish_timeline, read_events
from connectors.spans.sources import detect_format

__all__ = [
    "Event",
    "Options",
    "SpanImportError",
    "Summary",
    "Timeline",
    "detect_format",
    "import_spans",
    "load",
    "publish_timeline",
    "read_events",
]
