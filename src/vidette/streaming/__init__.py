"""Live streams: sources, time, buffers, and a classifier that keeps up with them."""
