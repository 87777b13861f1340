"""Tests of what every resource promises alike: permissions, visibility, input, idempotency."""
