"""`python -m app.cli.new_resource`."""

if __name__ == "__main__":
    import typer

    from app.cli.new_resource.commands import new_resource

    typer.run(new_resource)
