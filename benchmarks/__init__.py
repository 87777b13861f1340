"""How fast the API is, beside a bare app on the same machine: `scripts/bench --help`."""
