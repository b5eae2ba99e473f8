"""How intake takes over a partition of spans: the traces that are remembered, as of the last commit."""

import msgspec

from agents.ingest_state import StateBehind, until_visible
from agents.intake_output import POSITION
from connectors.log import read_changelog
from connectors.settings import Settings
from connectors.spans.live import LiveTrace, LiveTraces
from schemas.topics import OPEN_TRACES

decode = msgspec.json.Decoder(LiveTrace).decode


@until_visible
def restore(traces: LiveTraces, settings: Settings, partition: int, committed: int) -> None:
    """Have traces as of the commit at an offset (< 0 = none yet); raises StateBehind when that does not come to light."""
    if committed < 0:
        return
    entries = read_changelog(settings, settings.topic(OPEN_TRACES.name), partition)
    position = int(entries.pop(POSITION, b"-1"))
    if position < committed:
        raise StateBehind(f"partition {partition} is committed up to offset {committed}, its changelog shows {position}")
    traces.restore((name.decode(), decode(value)) for name, value in entries.items())
