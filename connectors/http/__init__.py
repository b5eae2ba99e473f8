"""The API: REST, WebSocket and server-sent events over what the pipeline has stored and what it says now."""


class NotServed(Exception):
    """The API could not begin, in one sentence."""
