"""OpenAI's shapes: bytes of a request in, bytes of an answer out. Pure."""
