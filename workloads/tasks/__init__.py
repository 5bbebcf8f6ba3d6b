"""Tasks: where the examples come from and how they become token ids."""
