"""Tests of what every HTTP response shares: errors, pages, limits, headers, logs and metrics."""
