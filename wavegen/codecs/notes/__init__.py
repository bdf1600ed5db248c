"""Scores to integer tokens and back."""
