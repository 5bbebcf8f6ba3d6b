"""Recorders: what the profiled pass is watched with."""
