"""Where models come from: table, hub, folders, the built-in opt-tiny, tokenizers, weights."""
