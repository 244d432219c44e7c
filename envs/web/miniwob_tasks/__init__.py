"""miniwob_tasks."""
