"""Records as rows of the two databases: pure functions, the same rows for the same records always."""
