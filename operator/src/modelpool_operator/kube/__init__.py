"""The edge to the Kubernetes API: the only modules that import its client."""
