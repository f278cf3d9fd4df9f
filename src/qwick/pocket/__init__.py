"""The embedded model: a Hugging Face style folder, made by `recipes/pocket`."""

from pathlib import Path

FOLDER = Path(__file__).parent / "model"
