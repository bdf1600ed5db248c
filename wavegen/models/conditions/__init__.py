"""What a model is conditioned on sample by sample."""
