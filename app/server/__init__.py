"""uvicorn, the sockets it listens at, and the bounds on what one connection may send."""
