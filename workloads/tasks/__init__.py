"""Tasks: examples as token ids, minibatches, rows and losses."""
