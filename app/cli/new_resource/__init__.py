"""`scripts/new-resource`: writes what a careful person would write by hand for a new resource.

`fields.py` reads the fields, `plan.py` decides on the names and refuses those that are taken,
`templates/` has the modules, `edits.py` adds to those that are there, `commands.py` is the command.
"""
