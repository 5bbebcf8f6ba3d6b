"""Sessions: fresh processes, timed steps, a separate profiled pass, results written after each."""
