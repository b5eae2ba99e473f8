"""What is told as it happens: read from Kafka once per process, kept for a while, sent to whoever listens."""
