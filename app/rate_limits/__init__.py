"""Limits on attempts: the rules, the limiter that applies them, the counters behind it."""
