"""Two small tasks that `opt-tiny` can learn without a hub: answers of any number and length, and answers to generate."""
