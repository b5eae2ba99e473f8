"""Pure scoring of what the product finds against known truth. Labels are read here and by nobody who detects or ranks."""
