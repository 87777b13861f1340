"""Tests of user accounts, by their owners and by administrators."""
