"""Which files a model's name means."""

from pathlib import Path

from qwick import pocket
from qwick.errors import UsageError

POCKET = "pocket"


def find_model(name: str | Path) -> Path:
    """The folder that `name` means: `pocket`, or a path. Raises UsageError with the remedy."""
    if name == POCKET:
        if not (pocket.FOLDER / "config.json").is_file():
            raise UsageError("this installation came without the embedded model; give a model folder, or reinstall")
        return pocket.FOLDER
    path = Path(name)
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError):  # too long, or a NUL inside: rather a prompt than a path
        is_folder = exists = False
    shown = f"{str(name)!a:.100}"
    if path.suffix == ".gguf":
        raise UsageError(f"{shown}: GGUF files come with a later version; give a folder with config.json, safetensors")
    if not exists:
        raise UsageError(f"there is no model {shown}; give `pocket` or a folder, and the prompt after it")
    if not is_folder:
        raise UsageError(f"{shown} is a file; give the folder that holds config.json, tokenizer.json and the weights")
    if not (path / "config.json").exists():
        raise UsageError(f"{shown} holds no config.json; give the model's own folder")
    return path
