"""What every layer may use: security, permissions, errors, logs. Imports none of the layers."""
