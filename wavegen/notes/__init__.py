"""Notes: in seconds and as text, in ticks and as MIDI, composed procedurally, and played by a sampled piano."""
