"""What runs: queues, reconcilers, pingers, the Lease."""
