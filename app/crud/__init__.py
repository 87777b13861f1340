"""The operations on each resource: plain async functions, the session first, the rest by keyword.

None of them commits: `database.begin()` does, when the request has succeeded.
"""
