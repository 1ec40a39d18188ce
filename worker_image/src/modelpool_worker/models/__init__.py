"""Model folders: where they come from, and what is checked before a library sees them."""
