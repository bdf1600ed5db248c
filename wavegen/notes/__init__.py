"""Melodies: notes as arrays and text, composed ones, and the piano that plays them."""
