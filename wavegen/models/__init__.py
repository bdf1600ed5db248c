"""Networks over tokens: each obeys the contract in ``base``."""
