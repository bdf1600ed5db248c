"""Finds the nearest entry of a codebook, in several implementations."""
