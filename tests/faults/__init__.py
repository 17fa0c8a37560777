"""Harnesses of faults: commands, and what is done to them."""
