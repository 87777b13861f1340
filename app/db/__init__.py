"""The database below the engine: what its errors mean."""
