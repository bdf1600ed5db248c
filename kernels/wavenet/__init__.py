"""Holds the WaveNet in its parallel form, and several implementations of its generation sample by sample."""
