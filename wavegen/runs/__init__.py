"""What a run leaves on disk, written and opened again."""
