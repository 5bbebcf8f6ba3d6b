"""Executors to compare against: the official training loops and plain eager PyTorch."""
