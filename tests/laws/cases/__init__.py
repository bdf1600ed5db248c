"""The cases on which laws are tested: small members of every kind, with something to feed them."""
