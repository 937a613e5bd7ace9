"""The VQE pipeline's tables: declarations, their builders, incremental ingest, quality, maintenance and SQL."""
