"""Notes: in seconds and as text, in ticks and as MIDI, composed ones, and the piano that plays them."""
