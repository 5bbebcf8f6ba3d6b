"""The vLLM executor: the stock wheel, parameter states as resident LoRA adapters.

executor.py   the contract: what the harness calls
variables.py  vLLM's switches in the environment
engine.py     settings and start of the engine
worker.py     what runs inside the worker: slots, scoring, folds, steps
cpu*.py       the platform plugin that lets the same wheel run where there is no accelerator
"""
