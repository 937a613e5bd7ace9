"""The platform's exporter: what the topics, consumer groups, Connect and the tables say, for Prometheus."""
