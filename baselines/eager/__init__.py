"""Zeroth-order steps in plain PyTorch on Hugging Face models, with the features switchable one by one."""
