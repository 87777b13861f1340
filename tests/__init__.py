"""Tests speak HTTP to the real app on real databases."""
