"""Copies of a model that share the work of every step and exchange nothing but numbers: seeds, losses, positions.

executor.py   the contract: what the harness calls
pool.py       who is given what, who takes over, who comes back and who joins
members.py    a replica as the driver knows it
checksums.py  whether they are still alike
replica.py    what runs in an actor: an executor, and where it stands in the log
log.py        what happened to the state, entry by entry: what a replica needs to get to where the others are
items.py      a step cut into items of work, and their losses put together again
cluster.py    Ray: started here or joined, and how many copies it has room for
"""
