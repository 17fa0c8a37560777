"""Samplers that are trained once and then draw at the price of plain decoding."""
