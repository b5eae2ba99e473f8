"""Chaos: everything that can end, stall or disturb a run happens to it under load, and then it is verified."""
