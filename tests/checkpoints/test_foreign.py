"""What people pass that is no model gets one sentence that says what it is and what to pass."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_checkpoints import Tiny, gguf_writer, save_gguf

from outrider.checkpoints import open_checkpoint
from outrider.errors import CheckpointError

Make = Callable[[str], Tiny]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


def gguf_of(path: Path, architecture: str, kind: str | None) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    if kind is not None:
        writer.add_string("general.type", kind)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((4, 64), np.float32))
    return written(writer, path)


def written(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def a_projector(root: Path, _tiny: Make) -> Path:
    return gguf_of(root / "mmproj.gguf", "clip", None)


def an_adapter_in_gguf(root: Path, _tiny: Make) -> Path:
    return gguf_of(root / "lora.gguf", "gemma3", "adapter")


def an_importance_matrix(root: Path, _tiny: Make) -> Path:
    return gguf_of(root / "imatrix.gguf", "llama", "imatrix")


def a_vocabulary(root: Path, tiny: Make) -> Path:
    return written(gguf_writer(tiny("gemma3").model.config, root / "vocab.gguf"), root / "vocab.gguf")


def an_adapter(root: Path, _tiny: Make) -> Path:
    (root / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "base_model_name_or_path": "google/gemma-3-1b-it"}'
    )
    save_file({"base_model.model.x.lora_A.weight": np.zeros((4, 64), np.float32)}, root / "adapter_model.safetensors")
    return root


def an_adapters_file(root: Path, tiny: Make) -> Path:
    return an_adapter(root, tiny) / "adapter_model.safetensors"


def pytorch_weights(root: Path, tiny: Make) -> Path:
    shutil.copy(tiny("gemma3").folder / "config.json", root)
    (root / "pytorch_model.bin").write_bytes(b"PK")
    return root


def a_pickle(root: Path, _tiny: Make) -> Path:
    (root / "model.pth").write_bytes(b"PK")
    return root / "model.pth"


def a_tokenizer(root: Path, _tiny: Make) -> Path:
    (root / "tokenizer.json").write_text("{}")
    return root


def an_empty_file(root: Path, _tiny: Make) -> Path:
    (root / "x").write_bytes(b"")
    return root / "x"


def an_empty_gguf_file(root: Path, _tiny: Make) -> Path:
    (root / "x.gguf").write_bytes(b"\n")
    return root / "x.gguf"


def an_empty_folder(root: Path, _tiny: Make) -> Path:
    return root


def two_models(root: Path, tiny: Make) -> Path:
    for name in ("a-Q4_0.gguf", "b-Q8_0.gguf", "mtp-b.gguf", "mmproj.gguf"):
        shutil.copy(tiny("gemma3").gguf, root / name)
    return root


def a_lost_part(root: Path, tiny: Make) -> Path:
    save_gguf(tiny("gemma3").model, root / "m.gguf", split=40)
    (root / "m-00001-of-00003.gguf").unlink()
    (root / "m-00003-of-00003.gguf").unlink()
    return root


def links_in_a_circle(root: Path, _tiny: Make) -> Path:
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    return root / "a"


def a_dangling_link(root: Path, _tiny: Make) -> Path:
    (root / "m.gguf").symlink_to("/nowhere/at/all")
    return root / "m.gguf"


def a_pipe(root: Path, _tiny: Make) -> Path:
    os.mkfifo(root / "m.gguf")
    return root / "m.gguf"


def a_pointer(root: Path, _tiny: Make) -> Path:
    (root / "m.gguf").write_text(LFS)
    return root / "m.gguf"


def a_folder_of_pointers(root: Path, tiny: Make) -> Path:
    shutil.copy(tiny("gemma3").folder / "config.json", root)
    (root / "model.safetensors").write_text(LFS)
    return root


def a_web_page(root: Path, _tiny: Make) -> Path:
    (root / "m.gguf").write_text("\n<!DOCTYPE html><html>Sign in</html>")
    return root / "m.gguf"


def one_file_of_a_folder(root: Path, tiny: Make) -> Path:
    return Path(shutil.copytree(tiny("gemma3").folder, root / "model")) / "model.safetensors"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_projector, "is a projector (the encoder of images or audio), not a model. Pass the model's own GGUF file."),
        (an_adapter_in_gguf, "is a LoRA adapter, not a model. Load its base model, and the adapter by "),
        (an_importance_matrix, "is an importance matrix, not a model. Pass the model's own GGUF file."),
        (a_vocabulary, "lacks the matrix token_embd.weight (the embedding)."),
        (an_adapter, "is a LoRA adapter of google/gemma-3-1b-it, not a model. Load its base model"),
        (an_adapters_file, "is a LoRA adapter of google/gemma-3-1b-it, not a model."),
        (pytorch_weights, "has no *.safetensors file. Pass a complete folder (PyTorch .bin files are not read,"),
        (a_pickle, "is a PyTorch file, which is not read since loading it can run code. Use the model's *.safetensors"),
        (a_tokenizer, "holds a tokenizer, and no config.json: it is not a whole model. Pass"),
        (an_empty_file, "is empty. Download it again."),
        (an_empty_gguf_file, "is empty. Download it again."),
        (an_empty_folder, "is an empty folder. Pass"),
        (two_models, "holds 2 GGUF files: a-Q4_0.gguf, b-Q8_0.gguf. Pass one of them."),
        (a_lost_part, "is one of 3 parts, and m-00001-of-00003.gguf is not beside it."),
        (links_in_a_circle, "which leads to no file. Repair the link, or pass the file."),
        (a_dangling_link, "is a link to /nowhere/at/all, which leads to no file."),
        (a_pipe, "is neither a file nor a folder. Pass"),
        (a_pointer, "is a pointer of Git LFS, not the file itself. Fetch the file with: git lfs pull."),
        (a_folder_of_pointers, "is a pointer of Git LFS, not the file itself."),
        (a_web_page, "is a web page, not a model. Download the file itself"),
        (one_file_of_a_folder, "is one file of a model's folder. Pass its folder: "),
    ],
)
def test_one_sentence(make: Callable[[Path, Make], Path], said: str, tmp_path: Path, tiny: Make) -> None:
    source = make(tmp_path, tiny)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(source)
    message = str(caught.value)
    assert said in message
    assert str(source) in message or str(tmp_path) in message
    assert "\n" not in message


def test_a_folder_with_one_model_is_that_model(tiny: Make, tmp_path: Path) -> None:
    save_gguf(tiny("gemma3").model, tmp_path / "m.gguf", split=40)
    for beside in ("mmproj-F16.gguf", "m-MTP.gguf", "imatrix.gguf"):
        (tmp_path / beside).write_bytes(b"another kind of file")
    assert open_checkpoint(tmp_path).path.name == "m-00001-of-00003.gguf"
    assert open_checkpoint(tmp_path / "m-00002-of-00003.gguf").path.name == "m-00001-of-00003.gguf"
