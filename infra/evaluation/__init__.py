"""Runs the product's own detectors and root-cause readers over public data sets with known truth."""
