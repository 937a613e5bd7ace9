"""The engines: sector, statevector and Aer behind one interface, each fast one beside a slow twin in `_slow`."""
