"""The WaveNet: its parallel form, and its sample-by-sample generation in several implementations."""
