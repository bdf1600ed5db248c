"""Studies: datasets x models x settings x seeds, trained and measured into one table and loss curves."""
