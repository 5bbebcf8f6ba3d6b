"""Training as background load of a live server: vLLM's own OpenAI server, and LoZO and its kin as work that waits for users.

settings.py    options of `serve`
site.py        from what was typed to what a server is made from
server.py      starts the engine and vLLM's application, and ends them
scheduler.py   vLLM's scheduler with users before probes
admission.py   how many probe tokens a round may hold: the policies
worker.py      what vLLM's worker is asked for; where training is put
process.py     a process beside the engine's, which shares its weights and slots
messages.py    how it is called
training.py    what training is asked for, wherever it is
state.py       its state, the probe slots, the published slots
slots.py       adapter slots whose columns hold the past as well
course.py      the steps
passes.py      their scores by passes of the model, in a process
questions.py   or by requests, within the engine
probes.py      scores for the server's own process: how versions are judged
publishing.py  the ring of published versions
feed.py        minibatches, with examples that came in while it runs
supply.py      which the engine has ahead, and the losses that come back
durable.py     journal and snapshots, and the way back
trainer.py     from one publication to the next
control.py     POST and GET /training
load.py        vLLM's load generator against a server, for `serve-bench`
child.py       a server as a child process
demo.py        `make demo-serve`
"""
