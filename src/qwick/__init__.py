"""qwick runs the Qwen3.5 small models on the computer you already have.

>>> from qwick import LLM
>>> LLM("pocket").generate("What is 17 + 25?")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors only; at run time `__getattr__` does it
    from qwick.async_llm import AsyncLLM as AsyncLLM
    from qwick.llm import LLM as LLM

__version__ = "0.1.0"
__all__ = ["LLM", "AsyncLLM", "__version__"]


def __getattr__(name: str) -> object:
    """Import the classes at first use: `import qwick` and `qwick --help` load neither numpy nor the kernels."""
    if name == "LLM":
        from qwick.llm import LLM

        return LLM
    if name == "AsyncLLM":
        from qwick.async_llm import AsyncLLM

        return AsyncLLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
