"""Tests of logins, passwords, tokens, sessions, signing keys and account recovery."""
