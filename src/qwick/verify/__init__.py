"""The shipped checks, run on the user's own model: `qwick verify MODEL`."""
