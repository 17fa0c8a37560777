"""Expectation-maximisation: an engine draws the latents, an adapter of the model is fitted to the draws, and again."""
