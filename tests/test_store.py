"""What a name means, and that the store never reaches outside itself."""

import os
from pathlib import Path

import pytest

from qwick import pocket, store
from qwick.errors import UsageError

HOSTILE = ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "-rf", ".hidden", "a b", "ä", "x" * 129, "a\nb", "~", "$HOME"]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store; the working directory is elsewhere."""
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("QWICK_MODELS", str(folder))
    return folder


def put_folder(path: Path, num_bytes: int = 100) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"x" * num_bytes)
    return path


def put_file(path: Path, num_bytes: int = 10) -> Path:
    path.write_bytes(b"x" * num_bytes)
    return path


def names() -> list[str]:
    return [entry.name for entry in store.entries()]


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert store.models_folder() == tmp_path / ".local/share/qwick/models"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/invalid")
    assert store.models_folder() == tmp_path / ".local/share/qwick/models"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert store.models_folder() == Path("/data/qwick/models")
    monkeypatch.setenv("QWICK_MODELS", "~/own")
    assert store.models_folder() == tmp_path / "own"


def test_a_store_that_is_not_there_is_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QWICK_MODELS", str(tmp_path / "none"))
    assert store.entries() == []
    put_file(tmp_path / "none")
    with pytest.raises(UsageError, match="QWICK_MODELS"):
        store.entries()


def test_entries_are_folders_and_files(models: Path) -> None:
    put_folder(models / "b")
    put_file(models / "A-Q4.gguf")
    put_file(models / "note.txt")
    (models / "empty").mkdir()
    (models / ".cache").mkdir()
    assert names() == ["A-Q4", "b"]
    assert [entry.num_bytes for entry in store.entries()] == [10, 102]


def test_the_parts_of_a_split_file_are_one_entry(models: Path) -> None:
    for part in (1, 2, 3):
        put_file(models / f"big-0000{part}-of-00003.gguf", part)
    (entry,) = store.entries()
    assert (entry.name, entry.num_bytes, len(entry.paths)) == ("big", 6, 3)
    assert entry.paths[0].name == "big-00001-of-00003.gguf"


def test_a_file_beside_a_folder_of_its_name_keeps_its_ending(models: Path) -> None:
    put_folder(models / "m")
    put_file(models / "m.gguf")
    assert names() == ["m", "m.gguf"]
    assert store.find_model("m") == models / "m"
    assert store.entry_named("m.gguf").paths == (models / "m.gguf",)


def test_each_file_of_a_folder_of_several_is_an_entry(models: Path) -> None:
    (models / "Qwen-GGUF").mkdir()
    for name in ("Q4_K_M.gguf", "Q8_0-00001-of-00002.gguf", "Q8_0-00002-of-00002.gguf", "mmproj-F16.gguf", "README.md"):
        put_file(models / "Qwen-GGUF" / name)
    assert names() == ["Qwen-GGUF/Q4_K_M", "Qwen-GGUF/Q8_0"]
    assert store.find_model("Qwen-GGUF/Q4_K_M") == models / "Qwen-GGUF" / "Q4_K_M.gguf"
    assert store.find_model("Qwen-GGUF/Q8_0").name == "Q8_0-00001-of-00002.gguf"
    store.remove(store.entry_named("Qwen-GGUF/Q8_0"))
    assert names() == ["Qwen-GGUF"], "one is left, and has the folder's name"
    assert store.find_model("Qwen-GGUF") == models / "Qwen-GGUF" / "Q4_K_M.gguf"


def test_a_home_that_nobody_knows_is_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_MODELS", "~no-such-user/models")
    with pytest.raises(UsageError, match="QWICK_MODELS"):
        store.entries()


def test_a_name_means_the_store(models: Path) -> None:
    put_folder(models / "Qwen3.5-0.8B")
    assert store.find_model("Qwen3.5-0.8B") == models / "Qwen3.5-0.8B"
    assert store.find_model("pocket") == pocket.FOLDER


def test_a_path_to_a_model_comes_before_the_store(models: Path) -> None:
    put_folder(models / "m")
    Path("m").mkdir()
    assert store.find_model("m") == models / "m", "a folder that is no model hides nothing"
    put_file(Path("m/config.json"))
    assert store.find_model("m") == Path("m")
    assert store.find_model(models / "m") == models / "m"


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("qwen3.5-0.8b", "did you mean Qwen3.5-0.8B"), ("Qwen35-08", "Qwen3.5-0.8B"), ("poket", "pocket"), ("zz", "list")],
)
def test_an_unknown_name_is_told_the_nearest(models: Path, asked: str, hint: str) -> None:
    put_folder(models / "Qwen3.5-0.8B")
    with pytest.raises(UsageError, match=hint):
        store.find_model(asked)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_find_nothing_and_make_nothing(models: Path, name: str) -> None:
    put_folder(models.parent / "x")
    with pytest.raises(UsageError):
        store.entry_named(name)
    with pytest.raises(UsageError):
        store.path_for_new(name)


def test_a_new_model_gets_a_path_in_the_store(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWICK_MODELS", str(models / "deeper" / "still"))
    path = store.path_for_new("mine-Q4_K_M")
    assert path == models / "deeper" / "still" / "mine-Q4_K_M.gguf"
    put_file(path)
    for taken in ("mine-Q4_K_M", "mine-Q4_K_M.gguf", "pocket"):
        with pytest.raises(UsageError):
            store.path_for_new(taken)
    assert store.path_for_new("mine-Q4_K_M", replace=True) == path


@pytest.mark.parametrize("name", ["folder", "split"])
def test_only_a_file_can_be_replaced(models: Path, name: str) -> None:
    put_folder(models / "folder")
    put_file(models / "split-00001-of-00001.gguf")
    with pytest.raises(UsageError, match="already"):
        store.path_for_new(name, replace=True)


def test_removing_takes_the_entry_and_nothing_else(models: Path) -> None:
    put_folder(models / "a")
    put_folder(models / "b")
    for part in (1, 2):
        put_file(models / f"big-0000{part}-of-00002.gguf")
    store.remove(store.entry_named("a"))
    store.remove(store.entry_named("big"))
    assert [path.name for path in models.iterdir()] == ["b"]


def test_removing_never_follows_links(models: Path) -> None:
    outside = put_folder(models.parent / "outside")
    (models / "linked").symlink_to(outside)
    inside = put_folder(models / "inside")
    (inside / "more").symlink_to(outside)
    (inside / "weights").symlink_to(outside / "model.safetensors")
    for name in ("linked", "inside"):
        store.remove(store.entry_named(name))
    assert list(models.iterdir()) == []
    assert sorted(path.name for path in outside.iterdir()) == ["config.json", "model.safetensors"]


def test_links_in_circles_end(models: Path) -> None:
    folder = put_folder(models / "m")
    (folder / "self").symlink_to(folder)
    (models / "loop").symlink_to(models / "loop")
    (models / "dangling.gguf").symlink_to(models / "nothing")
    assert names() == ["m"]
    assert store.entry_named("m").num_bytes == 102


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ((), r"no config\.json and no \.gguf"),
        (("a.gguf", "b.gguf"), "2 GGUF files; give one of them: a.gguf, b.gguf"),
    ],
)
def test_a_folder_must_hold_one_model(models: Path, files: tuple[str, ...], complaint: str) -> None:
    folder = Path("folder")
    folder.mkdir()
    for file in files:
        put_file(folder / file)
    with pytest.raises(UsageError, match=complaint):
        store.find_model("./folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_our_error(models: Path) -> None:
    folder = put_folder(models / "m")
    folder.chmod(0)
    try:
        assert names() == []
        with pytest.raises(UsageError, match="permissions"):
            store.find_model(folder)
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("name", ["what is this?", "x" * 5000, "a\0b", "", "/", "no/such"])
def test_anything_else_is_our_error(models: Path, name: str) -> None:
    with pytest.raises(UsageError):
        store.find_model(name)
