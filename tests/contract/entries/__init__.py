"""What the cross-cutting tests need to know of each resource: a module with an `ENTRY` for each."""
