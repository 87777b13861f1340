"""Tests of the database layer: connections, transactions, queries, migrations and retention."""
