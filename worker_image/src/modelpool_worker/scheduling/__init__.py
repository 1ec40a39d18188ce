"""From a request to the model and back: places, batches, rows."""
