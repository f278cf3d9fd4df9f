"""Many prompts of a file, answered into another, resumable."""
