"""chromium."""
