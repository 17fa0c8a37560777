"""Syntax: lines, tokens, trees, templates and canonical text. Knows no names' meaning."""
