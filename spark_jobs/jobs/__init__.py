"""What `spark-submit` runs: one job a file, settings from the environment."""
