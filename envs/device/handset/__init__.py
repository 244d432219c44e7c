"""handset."""
