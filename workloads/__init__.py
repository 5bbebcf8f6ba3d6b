"""Zeroth-order algorithms, their directions, tasks and models. Knows no engine."""
