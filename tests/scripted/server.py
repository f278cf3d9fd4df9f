"""`python -m tests.scripted.server FOLDER …`: what `qwick serve` is, but that the model is a script."""

from functools import partial

from qwick import async_llm
from qwick.cli.main import app

if __name__ == "__main__":
    async_llm.AsyncLLM = partial(async_llm.AsyncLLM, child="tests.scripted.child")  # the command imports it from there
    app()
