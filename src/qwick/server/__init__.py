"""`qwick serve`: OpenAI's API over HTTP, for one model."""
