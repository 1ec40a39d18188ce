"""The worker: one process serves one model, and says truthfully what state it is in."""
