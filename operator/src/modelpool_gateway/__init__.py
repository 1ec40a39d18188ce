"""The gateway: any pod in the cluster calls a model by its name."""
