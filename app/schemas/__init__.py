"""What goes in and out, as pydantic models. Inputs refuse unknown fields."""
