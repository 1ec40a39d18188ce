"""What embeddings are made by, beside the capability itself."""
