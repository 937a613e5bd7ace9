"""Kafka and Schema Registry: clients, topics, schemas, delivery."""
