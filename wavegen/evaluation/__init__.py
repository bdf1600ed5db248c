"""Figures and pictures that distinguish good audio from bad."""
