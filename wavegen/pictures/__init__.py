"""Pictures of audio, of notes and of runs."""
