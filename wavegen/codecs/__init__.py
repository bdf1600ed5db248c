"""Audio or notes to integer tokens and back."""
