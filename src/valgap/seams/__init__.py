"""The five seams of a PyTorch program: loader, model, loss, step, state. Listening at them, and nothing else.

Nothing is imported here: the host must be able to start before torch does.
"""
