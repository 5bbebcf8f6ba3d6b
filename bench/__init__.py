"""The harness: command line, specification, sessions, recorders, results and the vLLM executor."""
