"""What a worker can do: one module per capability, imported only by the worker that needs it."""
