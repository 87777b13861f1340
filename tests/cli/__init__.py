"""Tests of the commands behind scripts/."""
