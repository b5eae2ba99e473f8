"""Measurements of throughput, each beside a baseline in the same run on the same machine."""
