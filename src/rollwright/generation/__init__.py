"""Generation engines: `vllm` (in process), `transformers`, `scripted`; one contract (`base`), one maker (`select`)."""
