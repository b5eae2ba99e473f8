"""The ways in for services without the SDK: OpenTelemetry, CloudEvents, plain JSON, and topics whose records are no events of ours."""


class PortTaken(Exception):
    """An address cannot be served, in one sentence."""
