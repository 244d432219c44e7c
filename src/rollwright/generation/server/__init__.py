"""Generation by vLLM servers: start, supervise, ask, and give them new weights."""
