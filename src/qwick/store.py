"""Which files a model's name means, and the local store: a folder whose entries are models.

An entry is a folder (Hugging Face style, or one that holds a GGUF file) or a `.gguf` file, and is called by its name
without that ending; of a folder that holds several GGUF files each is an entry, FOLDER/NAME. No model is read here.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from qwick import pocket
from qwick.errors import UsageError

POCKET = "pocket"
GGUF = ".gguf"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PART = re.compile(r"(?P<name>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the store. `paths`: what was put there: a folder, a file, or the parts of a split GGUF in order."""

    name: str
    paths: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """On disk; of a link, what it points to."""
        return sum(stat.st_size for path in self.paths for stat in _stats(path))

    @property
    def modified(self) -> float:
        """Seconds since 1970: the newest file's."""
        return max((stat.st_mtime for path in self.paths for stat in _stats(path)), default=0.0)


def models_folder() -> Path:
    """QWICK_MODELS, or qwick/models in the user's data folder. It may not exist yet. Raises UsageError."""
    own = os.environ.get("QWICK_MODELS")
    try:
        if own:
            return Path(own).expanduser().absolute()
        data = os.environ.get("XDG_DATA_HOME", "")
        # The specification: a relative path there is invalid and counts as none.
        base = Path(data) if Path(data).is_absolute() else Path.home() / ".local" / "share"
    except RuntimeError as error:  # no home, or none of that name
        raise UsageError(f"cannot tell where models are kept ({error}); set QWICK_MODELS to a folder") from None
    return base / "qwick" / "models"


def entries() -> list[Entry]:
    """The models of the store by name; what does not look like a model is left out. Raises UsageError."""
    try:
        paths = sorted(models_folder().iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read {models_folder()} ({error.strerror}); set QWICK_MODELS to a folder") from None
    found: dict[str, list[Path]] = {}
    for name, group in _grouped(paths).items():
        inside = _grouped(_several(group[0]))
        found |= {f"{name}/{inner}": files for inner, files in inside.items()} or {name: group}
    return [Entry(name, tuple(parts)) for name, parts in sorted(found.items(), key=lambda item: item[0].lower())]


def entry_named(name: str) -> Entry:
    """The model of the store called `name` (`.gguf` may follow). Raises UsageError that names near ones."""
    found = {entry.name: entry for entry in entries()}
    for wanted in (name, name.removesuffix(GGUF)):
        if wanted in found:
            return found[wanted]
    shown = f"{name!a:.100}"
    if name == POCKET:
        raise UsageError("`pocket` comes with qwick and is not in the store; qwick inspect pocket tells about it")
    raise UsageError(f"there is no model {shown} in {models_folder()}; {_near(name, list(found))}")


def find_model(name: str | Path) -> Path:
    """The folder or GGUF file that `name` means: `pocket`, a path, or a name in the store. Raises UsageError."""
    if name == POCKET:
        if not (pocket.FOLDER / "config.json").is_file():
            raise UsageError("this installation came without the embedded model; give a model folder, or reinstall")
        return pocket.FOLDER
    path = Path(name)
    exists = _exists(path)
    if (exists and _is_model(path)) or not all(_NAME.fullmatch(part) for part in str(name).split("/", maxsplit=1)):
        return _model_at(path, exists=exists)
    try:
        entry = entry_named(str(name))
    except UsageError:
        if exists:
            return _model_at(path, exists=True)
        known = [POCKET, *(entry.name for entry in entries())]
        near = _near(str(name), known)
        what = "give a folder, a .gguf file or a name of the store"
        raise UsageError(f"there is no model {str(name)!a:.100}; {what}: {near}") from None
    return _model_at(entry.paths[0], exists=True)


def path_for_new(name: str, *, replace: bool = False) -> Path:
    """Where a new model of the store called `name` goes: a GGUF file in a folder that is there.

    Raises UsageError for a name that could leave the store, and for one that is taken, unless `replace` and by a file.
    """
    name = name.removesuffix(GGUF)
    if not _NAME.fullmatch(name) or name == POCKET:
        raise UsageError(f"a model cannot be called {name!a:.100}; use up to 128 letters, digits, dots, _ and -")
    taken = next((entry for entry in entries() if entry.name == name), None)
    if taken is not None and not (replace and [path.name for path in taken.paths] == [name + GGUF]):
        raise UsageError(f"the store has a model {name!r} already; remove it (qwick rm {name}) or take another name")
    folder = models_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder} ({error.strerror}); set QWICK_MODELS to a folder you own") from None
    return folder / (name + GGUF)


def remove(entry: Entry) -> None:
    """Delete an entry's files. Of a link only the link goes; links inside a folder are not followed."""
    for path in entry.paths:
        try:
            if path.is_symlink() or not path.is_dir():
                path.unlink()
            else:
                shutil.rmtree(path)  # does not follow links
        except OSError as error:
            raise UsageError(f"cannot delete {error.filename or path}: {error.strerror}; see its permissions") from None


def _model_at(path: Path, *, exists: bool) -> Path:
    """`path` when it can be a model: a folder with config.json, a GGUF file, or the only one of a folder."""
    shown = f"{str(path)!a:.100}"
    if not exists:
        what = "a folder, a .gguf file or a name from qwick list, and the prompt after it"
        raise UsageError(f"there is no model {shown}; give `pocket`, {what}")
    try:
        is_folder, holds_config = path.is_dir(), (path / "config.json").exists()
        firsts = _first_parts(path) if is_folder and not holds_config else []
    except OSError as error:
        raise UsageError(f"cannot read {shown}: {error.strerror}; see its permissions") from None
    if is_folder and not holds_config:
        if not firsts:
            raise UsageError(f"{shown} holds no config.json and no .gguf file; give the model's own folder")
        if len(firsts) > 1:
            names = ", ".join(file.name for file in firsts[:4]) + (", …" if len(firsts) > 4 else "")
            raise UsageError(f"{shown} holds {len(firsts)} GGUF files; give one of them: {names}")
        path, is_folder = firsts[0], False
    if is_folder:
        return path
    if path.suffix.lower() != GGUF:
        raise UsageError(f"{shown} is a file; give a .gguf file, or the folder that holds config.json and the weights")
    return path


def _is_model(path: Path) -> bool:
    """Whether it looks like one from outside; what cannot be read does not."""
    try:
        if path.is_dir():
            return (path / "config.json").exists() or bool(_first_parts(path))
        return _is_gguf(path) and path.exists()
    except OSError:
        return False


def _is_gguf(path: Path) -> bool:
    """By its name; not the vision encoders that lie beside the models."""
    return path.suffix.lower() == GGUF and not path.name.lower().startswith("mmproj")


def _first_parts(folder: Path) -> list[Path]:
    """The GGUF models of a folder: of a split one the first part."""
    parts = ((path, _PART.fullmatch(path.name)) for path in sorted(folder.iterdir()) if _is_gguf(path))
    return [path for path, part in parts if part is None or int(part["part"]) == 1]


def _several(path: Path) -> list[Path]:
    """The GGUF files of a folder that holds more than one model, as repositories of quantised models do."""
    if not path.is_dir() or (path / "config.json").exists() or len(_first_parts(path)) < 2:
        return []
    return sorted(path.iterdir())


def _grouped(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """The models among `paths` by name, the parts of a split one together."""
    paths = list(paths)
    grouped: dict[str, list[Path]] = {}
    for path in paths:
        if _NAME.fullmatch(path.name) and _is_model(path):
            grouped.setdefault(_name_of(path, paths), []).append(path)
    return grouped


def _name_of(path: Path, beside: Iterable[Path]) -> str:
    """Without `.gguf` and part number; the whole name where a folder is called the same."""
    if path.is_dir():
        return path.name
    part = _PART.fullmatch(path.name)
    stem = part["name"] if part else path.stem
    return path.name if any(other.name == stem for other in beside) else stem


def _stats(path: Path) -> Iterator[os.stat_result]:
    """Of the files under an entry's path, without hidden folders (download caches) and what vanishes meanwhile."""
    found = [path]
    if path.is_dir():
        found.clear()
        for root, folders, names in os.walk(path):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            found += (Path(root) / name for name in names)
    for file in found:
        with suppress(OSError):
            yield file.stat()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a NUL inside: rather a prompt than a path
        return False


def _near(name: str, known: list[str]) -> str:
    by_lower = {other.lower(): other for other in known}
    near = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "qwick list shows what is there" if known else "the store is empty: put a folder or a .gguf file there"
