"""Faults injected into servers in processes of their own: run by scripts/test-faults."""
