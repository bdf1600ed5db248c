"""Figures of audio, of notes and of training runs."""
