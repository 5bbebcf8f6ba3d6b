"""A package of a user's own that adds a workload."""
