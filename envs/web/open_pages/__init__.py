"""open_pages."""
