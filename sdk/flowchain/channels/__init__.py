"""Where events go. Every channel is made, used and closed in its publisher's thread, so it may wait there, never in the host's."""

from flowchain.channels.base import Channel, Encoded, MakeChannel
from flowchain.channels.http import HttpChannel
from flowchain.channels.kafka import KafkaChannel
from flowchain.channels.local import FileChannel, LogChannel, MemoryChannel
from flowchain.channels.websocket import WebSocketChannel

__all__ = [
    "Channel",
    "Encoded",
    "FileChannel",
    "HttpChannel",
    "KafkaChannel",
    "LogChannel",
    "MakeChannel",
    "MemoryChannel",
    "WebSocketChannel",
]
