"""Layers that several token models share."""
