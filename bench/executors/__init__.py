"""Executors of the harness itself: vLLM, and a scripted one for tests."""
