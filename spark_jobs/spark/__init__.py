"""The tables by Spark: the same declarations on DataFrames, for platforms."""
