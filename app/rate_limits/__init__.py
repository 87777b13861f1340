"""Rate limits: the limits of each action, the limiter that applies them, its counters."""
