"""The edges: Kafka, ClickHouse, PostgreSQL, settings, metrics, intake of foreign formats."""
