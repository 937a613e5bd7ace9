"""What runs specifications: the session, its child process, the worker, the sweep."""
