"""What HTTP needs whatever the noun: dependencies, middlewares, problems, listings, limits."""
