"""The commands behind `scripts/`: `python -m app.cli --help` lists them."""
