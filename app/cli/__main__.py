"""`python -m app.cli`."""

if __name__ == "__main__":
    from app.cli.commands import cli

    cli()
