"""Faults made on purpose, against servers in processes of their own: run by scripts/test-faults."""
