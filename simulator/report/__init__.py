"""The HTML report of runs: one file that needs nothing else, from the tables."""
