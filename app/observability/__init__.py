"""Metrics, traces and readiness: what operators see of a process."""
