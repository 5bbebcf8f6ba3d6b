"""An executor without a model, for tests of the harness."""
