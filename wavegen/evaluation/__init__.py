"""Figures and pictures that tell good audio from bad."""
