"""Text environments: mazes and games that live in memory."""
