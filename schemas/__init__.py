"""The contract: every record on every topic, the topic catalogue, the errors, the SQL, golden examples, JSON Schemas."""
