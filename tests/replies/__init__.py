"""A third-party package: replies to posts, served without a line of `app/` changed.

`tests/web/test_other_resources.py` runs `check_replies.py` in a process of its own: what is
imported here is on the metadata of all models, and among all permissions.
"""
