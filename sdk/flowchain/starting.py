"""What `flowchain.init` does: from settings to channels, publishers, sampling and metrics."""

from collections.abc import Mapping
from typing import Any

from flowchain.channels import FileChannel, HttpChannel, KafkaChannel, LogChannel, MakeChannel, WebSocketChannel
from flowchain.counts import logger
from flowchain.fanout import Fanout
from flowchain.metrics import FlowMetricsCollector, backend
from flowchain.publisher import Publisher
from flowchain.sampling import Sampler
from flowchain.settings import Settings, kafka_settings
from flowchain.tracker import Tracker


def channel_makers(settings: Settings, channel: Any, kafka: Mapping[str, Any]) -> dict[str, MakeChannel]:
    """Return what makes each channel, under its name."""
    known: dict[str, MakeChannel] = {
        "kafka": lambda counts: KafkaChannel(counts, settings.topic_prefix + settings.topic, of_kafka),
        "http": lambda counts: HttpChannel(counts, settings.url, settings.api_key),
        "websocket": lambda counts: WebSocketChannel(counts, settings.url, settings.api_key),
        "file": lambda counts: FileChannel(counts, settings.file),
        "log": LogChannel,
    }
    of_kafka = {
        **kafka_settings(),
        "bootstrap.servers": settings.bootstrap_servers,
        **{key.replace("_", "."): kafka[key] for key in kafka},
    }
    wanted = channel.split(",") if isinstance(channel, str) else [channel] if callable(channel) else channel
    return {
        (item.strip() if isinstance(item, str) else f"channel {number}"): known[item.strip()] if isinstance(item, str) else item
        for number, item in enumerate(wanted, 1)
    }


def begin(tracker: Tracker, settings: Settings, makers: Mapping[str, MakeChannel]) -> Publisher | Fanout:
    """Have a tracker report to these channels from now on; return what is between."""
    publishers = {key: Publisher(make, settings.queue_size, settings.queue_bytes) for key, make in makers.items()}
    first, *others = publishers.values()
    outlet = Fanout(publishers) if others else first
    tracker.outlet = outlet
    _begin_sampling(tracker, settings, first)
    _begin_metrics(tracker, settings, first)
    return outlet


def _begin_sampling(tracker: Tracker, settings: Settings, publisher: Publisher) -> None:
    if settings.sample_rate < 1.0:
        sampler = Sampler(tracker.send, tracker.clock, settings.sample_rate, settings.slow_ms)
        publisher.chores.append(sampler.release_slow)
        publisher.start()
        tracker.sampler = sampler


def _begin_metrics(tracker: Tracker, settings: Settings, publisher: Publisher) -> None:
    if not settings.metrics:
        return
    try:
        collector = FlowMetricsCollector(backend(settings.metrics))
    except (ImportError, KeyError) as error:
        logger.warning("flowchain: no metrics: %s %s", settings.metrics, error)
        return
    publisher.chores.append(collector.fold)
    tracker.metrics = collector
