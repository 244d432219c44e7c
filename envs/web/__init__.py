"""Web environments: real pages in a headless browser."""
