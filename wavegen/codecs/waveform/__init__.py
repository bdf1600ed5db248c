"""The codec of waveforms, and the discriminators that it may train against."""
