"""What runs will take, before anything is computed: calls, tokens, trainings, disk and, given speeds, time.

A plan loads no language model and no encoder, and writes nothing. Its prompts are those of the run itself, rendered for
a sample of instances; what the model has not said yet is stood in for (`bench.planning.calls`).
"""

from bench.planning.plan import Options, Plan, plan
from bench.planning.speed import Speeds

__all__ = ["Options", "Plan", "Speeds", "plan"]
