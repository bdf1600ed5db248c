"""From a model, a prompt and a key to tokens."""
