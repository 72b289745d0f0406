"""The hooks on a running program, and what they tell: loaders, models, losses, steps, state, comparisons."""
