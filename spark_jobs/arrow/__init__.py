"""The tables without Spark: events into Arrow tables, committed by PyIceberg."""
