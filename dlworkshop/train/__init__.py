"""`fit` and what it is made of: the only room with a clock and a disk."""
