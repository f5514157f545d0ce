"""What open_clip encoders say about names, files, networks and disks that are not as expected."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip import tokenizer as open_clip_tokenizer
from safetensors.torch import load_file, save_file

from ovoad_model.errors import MissingRuntimeError, UnknownEncoderError, UnknownRuntimeError
from ovoad_model.open_clip_encoder import exports, weights
from ovoad_model.open_clip_encoder.encoder import load_encoder
from ovoad_model.open_clip_encoder.errors import (
    NoSpaceError,
    OpenClipNameError,
    UnfetchedError,
    WeightsFileError,
    WrongCheckpointError,
)
from ovoad_model.open_clip_encoder.names import parse_name
from ovoad_model.open_clip_encoder.runtimes import UnusableRuntimeError
from ovoad_model.open_clip_encoder.text import load_tokenizer

from .open_clip_parts import add_tiny_models, random_model, write_weights


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_tiny_models(monkeypatch)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_weights(random_model("tiny-vit"), tmp_path / "tiny.safetensors")


def test_importing_what_builds_encoders_imports_no_torch() -> None:
    program = (
        "import sys, ovoad_model.build, ovoad_model.encoders_command;"
        "from ovoad_model.open_clip_encoder.names import parse_name;"
        "parse_name('open_clip:ViT-B-16/openai');"
        "sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", program], check=False).returncode == 0


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UnknownEncoderError, match=r"no model 'ViT-b16', nearest: ViT-B-16"):
        parse_name("open_clip:ViT-b16/openai")
    with pytest.raises(OpenClipNameError, match="none is like it; expected open_clip:MODEL/TAG"):
        parse_name("open_clip:" + "☃" * 8 + "/openai")


def test_unknown_tag_names_the_models_tags() -> None:
    with pytest.raises(OpenClipNameError, match="tagged 'open-ai', expected one of openai, laion"):
        parse_name("open_clip:ViT-B-16/open-ai")
    with pytest.raises(OpenClipNameError, match="name a file, open_clip:MODEL@FILE"):
        parse_name("open_clip:ViT-S-16/openai")
    with pytest.raises(
        OpenClipNameError, match=r"found no weights \(tags of RN50: openai, yfcc15m"
    ):
        parse_name("open_clip:RN50")


def test_weights_trained_with_other_activations_bring_them() -> None:
    assert parse_name("open_clip:ViT-B-16/openai").quick_gelu
    assert not parse_name("open_clip:ViT-B-16/laion2b_s34b_b88k").quick_gelu
    assert parse_name("open_clip:ViT-B-16-quickgelu/openai").quick_gelu


def test_a_file_of_a_model_with_several_ways_needs_a_tag(tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(OpenClipNameError, match="expected open_clip:ViT-L-14/TAG@FILE"):
        load_encoder(f"open_clip:ViT-L-14@{path}")


def test_no_such_file_and_strange_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsFileError, match="found no such file"):
        parse_name(f"open_clip:tiny-vit@{tmp_path / 'none.pt'}")
    with pytest.raises(WeightsFileError, match=r"found ending '.gz', expected one of .safetensors"):
        parse_name("open_clip:tiny-vit@x.gz")


def test_another_models_checkpoint_names_the_keys(tmp_path: Path, file: Path) -> None:
    state = load_file(file)
    state["visual.extra"] = state.pop("visual.ln_post.bias")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(WrongCheckpointError) as caught:
        load_encoder(f"open_clip:tiny-vit@{tmp_path / 'other.safetensors'}")
    assert caught.value.missing == ("visual.ln_post.bias",)
    assert caught.value.extra == ("visual.extra",)
    assert "1 missing (visual.ln_post.bias); 1 that the model has not (visual.extra)" in str(
        caught.value
    )


def test_a_checkpoint_of_another_shape_names_the_keys(tmp_path: Path, file: Path) -> None:
    state = load_file(file)
    state["visual.proj"] = torch.zeros(32, 25)
    save_file(state, tmp_path / "wide.safetensors")
    with pytest.raises(WrongCheckpointError, match=r"1 of another shape \(visual.proj\)"):
        load_encoder(f"open_clip:tiny-vit@{tmp_path / 'wide.safetensors'}")


def test_a_resnets_checkpoint_is_no_vits(tmp_path: Path) -> None:
    path = write_weights(random_model("tiny-resnet"), tmp_path / "resnet.safetensors")
    with pytest.raises(WrongCheckpointError, match=r"expected a checkpoint of tiny-vit"):
        load_encoder(f"open_clip:tiny-vit@{path}")


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_truncated_files_are_told_from_good_ones(
    ending: str, kept: float, tmp_path: Path, file: Path
) -> None:
    whole = tmp_path / f"whole{ending}"
    if ending == ".pt":
        torch.save(load_file(file), whole)
    else:
        whole = file
    content = whole.read_bytes()
    cut = tmp_path / f"cut{ending}"
    cut.write_bytes(content[: int(kept if kept >= 1 or not kept else kept * len(content))])
    with pytest.raises(WeightsFileError, match=r"damaged or cut short .*fetch it anew"):
        load_encoder(f"open_clip:tiny-vit@{cut}")


def test_a_pickle_that_could_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": Path("x")}}, tmp_path / "code.pt")
    with pytest.raises(WeightsFileError, match="found more than tensors in a pickle"):
        load_encoder(f"open_clip:tiny-vit@{tmp_path / 'code.pt'}")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsFileError, match="found no state dict of tiny-vit"):
        load_encoder(f"open_clip:tiny-vit@{tmp_path / 'list.pt'}")


def test_without_network_the_message_says_how_to_bring_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("Failed to download file: name or service not known")

    monkeypatch.setattr(weights, "download_pretrained", unreachable)
    with pytest.raises(UnfetchedError) as caught:
        load_encoder("open_clip:ViT-B-16-SigLIP2/webli")
    message = str(caught.value)
    assert "weights ViT-B-16-SigLIP2/webli: could not be fetched (Failed to download" in message
    assert "hf download timm/ViT-B-16-SigLIP2 open_clip_model.safetensors" in message
    assert "name it: open_clip:ViT-B-16-SigLIP2/webli@/path/to/open_clip_model.safeten" in message


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError("Failed to download. Last error: [Errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_told_while_fetching(
    error: OSError, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(weights, "download_pretrained", full)
    with pytest.raises(NoSpaceError, match=r"found no space left in .*hub for weights ViT-B-16/op"):
        load_encoder("open_clip:ViT-B-16/openai")


def test_a_full_disk_is_told_while_exporting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exports, "export", full)
    encoder = load_encoder(f"open_clip:tiny-vit@{file}", runtime="onnxruntime", cache=tmp_path)
    with pytest.raises(NoSpaceError, match="for an exported image tower"):
        encoder.encode_frames([torch.zeros(9, 9, 3, dtype=torch.uint8).numpy()])
    assert not list((tmp_path / "encoders").rglob("*unfinished*"))


def test_a_tokenizer_that_is_missing_offline_says_where_it_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(open_clip_tokenizer.HFTokenizer, "__init__", offline)
    name = parse_name("open_clip:ViT-B-16-SigLIP2/webli")
    with pytest.raises(UnfetchedError) as caught:
        load_tokenizer(name, tmp_path)
    message = str(caught.value)
    assert "tokenizer timm/ViT-B-16-SigLIP2 of ViT-B-16-SigLIP2: could not be fetched" in message
    assert "hf download timm/ViT-B-16-SigLIP2 tokenizer.json tokenizer_config.json" in message
    assert "or put these files beside the weights" in message


def test_a_text_towers_config_that_is_missing_offline_says_where_it_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect")

    monkeypatch.setattr("open_clip.create_model", offline)
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"x")
    with pytest.raises(UnfetchedError, match=r"text tower xlm-roberta-base: .*config\.json"):
        load_encoder(f"open_clip:xlm-roberta-base-ViT-B-32@{path}")


def test_missing_transformers_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise ImportError("No module named 'transformers'")

    monkeypatch.setattr("open_clip.get_tokenizer", absent)
    with pytest.raises(MissingRuntimeError, match="pip install transformers"):
        load_tokenizer(parse_name("open_clip:ViT-B-16-SigLIP2/webli"), tmp_path)


def test_runtimes_that_cannot_run_here_are_refused_at_the_start(file: Path) -> None:
    with pytest.raises(UnknownRuntimeError, match="found runtime 'abacus', expected one of auto"):
        load_encoder(f"open_clip:tiny-vit@{file}", runtime="abacus")
    with pytest.raises(UnusableRuntimeError, match="found device cpu, expected a GPU"):
        load_encoder(f"open_clip:tiny-vit@{file}", runtime="torch-fp16", device="cpu")
    with pytest.raises(UnusableRuntimeError, match="onnxruntime-gpu"):
        load_encoder(f"open_clip:tiny-vit@{file}", runtime="tensorrt", device="cpu")
