"""Tests of roles and of what a permission opens."""
