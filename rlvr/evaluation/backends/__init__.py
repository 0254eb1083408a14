"""What generates: transformers in this process, vLLM in this process, or a server."""
