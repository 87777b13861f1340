"""How often anybody may try: the rules, the limiter that applies them, the counters behind it."""
