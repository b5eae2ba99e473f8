"""Is what a run has published and stored what its log really says? A batch computation, and a comparison with it."""
