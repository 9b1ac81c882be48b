"""`fit` and its parts: the package that uses clock, disk and devices."""
