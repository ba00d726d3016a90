"""What a model name means, and when a checkpoint folder is converted again."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import ModelFileError
from backends.reference.backend import ReferenceBackend
from localr1 import library, paths
from localr1.models import ModelSpec, converted, converted_file, open_model, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(paths.assets() / "r1-tiny", tmp_path / "copy"))


def test_names(folder: Path, student_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = ModelSpec("r1-tiny", "folder", paths.assets() / "r1-tiny")
    assert resolve(None) == resolve("r1-tiny") == bundled
    assert resolve(str(folder)) == ModelSpec("copy", "folder", folder)
    assert resolve(str(student_gguf)) == ModelSpec(student_gguf.stem, "gguf", student_gguf)
    monkeypatch.chdir(folder)
    assert resolve(".").name == "copy"
    with pytest.raises(ModelFileError, match="no model called"):
        resolve("x" * 300)


def test_a_gguf_is_known_by_its_content(student_gguf: Path, folder: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "model.bin"
    renamed.write_bytes(student_gguf.read_bytes())
    assert resolve(str(renamed)).kind == "gguf"
    with pytest.raises(ModelFileError, match="name the checkpoint folder"):
        resolve(str(folder / "model.safetensors"))
    with pytest.raises(ModelFileError, match="no GGUF file"):
        resolve(str(folder / "config.json"))
    for name in ("r9", "", "~nobody-of-that-name/x"):
        with pytest.raises(ModelFileError, match=f"no model called '{name}'"):
            resolve(name)
    with pytest.raises(ModelFileError, match=r"folder of GGUF files; name one of them.*r1-tiny-Q8_0\.gguf"):
        resolve(str(student_gguf.parent))


def test_a_folder_is_converted_once_and_again_when_it_changes(folder: Path, own_folders: Path) -> None:
    said: list[str] = []
    spec = resolve(str(folder))
    first = converted(spec, said.append)
    assert first.is_file() and "converting copy to Q8_0" in said[0]
    said.clear()
    assert converted(spec, said.append) == first and said == []
    os.utime(folder / "model.safetensors", ns=(1, 1))
    second = converted(spec, said.append)
    assert second != first and said
    assert not first.exists()
    assert converted_file(replace(spec, name="owner/other"), "Q8_0") == second  # by whatever name it is asked for
    with open_model(spec) as backend:
        assert backend.info.format == "Q8_0"


def test_a_failed_conversion_leaves_nothing(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\0" * 50)
    spec = resolve(str(folder))
    with pytest.raises(ModelFileError):
        converted(spec, lambda line: None)
    assert [p for p in (paths.cache() / "converted").iterdir() if p.name.endswith(".part")] == []


def test_a_damaged_conversion_is_made_again(folder: Path) -> None:
    spec = resolve(str(folder))
    made = converted(spec, lambda line: None)
    os.truncate(made, 100_000)
    said: list[str] = []
    with open_model(spec, say=said.append) as backend:
        assert backend.info.format == "Q8_0"
    assert said


def test_a_conversion_that_cannot_be_opened_for_another_reason_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, said = resolve(str(folder)), list[str]()
    made = converted(spec, lambda line: None)
    monkeypatch.setattr("backends.llamacpp.load_model", lambda *_: None)
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        open_model(spec, say=said.append)
    assert made.exists() and not any("converting" in line for line in said)


def test_what_is_put_beside_a_model_does_not_change_it(folder: Path) -> None:
    spec = resolve(str(folder))
    before = converted_file(spec, "Q8_0")
    for name in ("out.gguf", ".DS_Store", "notes.txt"):
        (folder / name).write_text("x")
    assert converted_file(spec, "Q8_0") == before
    (folder / "tokenizer_config.json").touch()
    assert converted_file(spec, "Q8_0") != before


def test_a_model_of_the_hub_is_called_by_its_repository(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--deepseek-ai--DeepSeek-R1-Distill-Qwen-1.5B" / "snapshots" / "ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562"
    shutil.copytree(paths.assets() / "r1-tiny", snapshot)
    spec = resolve(str(snapshot))
    assert spec.name == "DeepSeek-R1-Distill-Qwen-1.5B"
    library.used(snapshot)
    assert resolve(None) == spec
    with ReferenceBackend(snapshot) as reference, open_model(spec) as llama:
        assert reference.info.name == spec.name
        assert llama.info.name == "DeepSeek R1 Distill Qwen 1.5B"


def test_an_unusable_cache_folder_is_one_clear_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelFileError, match=r"cache folder .* cannot be made .*set XDG_CACHE_HOME"):
        converted(resolve(str(folder)), lambda line: None)


def test_the_last_used_model_is_the_default(student_gguf: Path) -> None:
    from localr1 import library

    assert resolve(None).name == "r1-tiny"
    library.used(student_gguf)
    assert resolve(None) == ModelSpec(student_gguf.stem, "gguf", student_gguf)
    assert resolve(None, "reference").name == resolve(None, "mlx").name == "r1-tiny"  # which cannot run it
    library.used(paths.assets() / "r1-tiny")
    assert resolve(None) == resolve("r1-tiny")
