"""What is measured while the platform works: the monitor, pushed and served metrics, the exporter."""
