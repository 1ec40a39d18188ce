"""Images from clients: fetched, bounded and decoded."""
