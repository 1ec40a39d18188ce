"""HTTP: two ports, their endpoints, and what both share."""
