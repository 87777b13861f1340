"""Tests of posts, their tags and their search."""
