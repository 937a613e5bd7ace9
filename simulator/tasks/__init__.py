"""What can be run: each kind of task is one folder here, and `registry` is the only place that knows which there are."""
