"""Numbers that say how good draws are: distance to a reference, diversity, overlap with a text, fit to a label."""
