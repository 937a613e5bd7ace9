"""The platform's exporter: what the topics, consumer groups, Connect, the work queue and the tables say, for Prometheus."""
