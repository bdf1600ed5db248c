"""Parts that several token models are built of."""
