"""The forms of OpenAI's API: what may be asked (requests), how answers and errors are written (answers)."""
