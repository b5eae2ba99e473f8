"""What happens to the data, as pure functions and small classes: no Kafka, no database, no wall clock."""
