"""Cimiento: users, posts and roles over a clean HTTP API. Start reading at ARCHITECTURE.md."""

__version__ = "0.1.0"
