"""What is told of a run: event records, their schemas, and the one reader of the files that hold them."""
