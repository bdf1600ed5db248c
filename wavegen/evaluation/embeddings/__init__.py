"""Embeddings: from a clip to vectors, between whose sets distances are measured."""
