"""What a run does, stage by stage; `pipeline.py` says in which order. Each stage is a function of a `RunContext`."""
