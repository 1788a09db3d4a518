"""Soft prompts: training the adapters that make them, keeping and importing adapters, vectors for a run."""
