"""Rows of data files, for any task: which files belong together, what they hold, where each row stands."""
