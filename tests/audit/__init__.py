"""Tests of the audit trail: what is recorded, kept and shown."""
