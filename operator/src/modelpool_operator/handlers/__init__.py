"""kopf's side: watches, ticks and probes feed the runtime."""
