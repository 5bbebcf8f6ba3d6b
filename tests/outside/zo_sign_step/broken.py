"""A module that cannot be imported: what its package adds besides has to go on working."""

raise RuntimeError("half an upload")
