"""Audio or notes to integer tokens and back: the contract is ``base``, the tables of members are in ``make``."""
