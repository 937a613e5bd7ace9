"""The real services for tests: Kafka, a schema registry, MinIO and Kafka Connect as plain processes on the loopback.

Here: ``Stack`` (stack.py), the pytest fixtures (fixtures.py), and a command line, ``python -m tests.services``.
"""
