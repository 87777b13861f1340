"""The database: the engine, prepared queries, transactions, listings, migrations, drivers."""
