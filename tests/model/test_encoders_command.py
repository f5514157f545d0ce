"""`ovoad encoders`: what it lists, at once and without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ovoad_model import encoders_command
from ovoad_model.encoders_command import main
from ovoad_model.errors import MissingRuntimeError
from ovoad_model.open_clip_encoder.catalogue import architectures, open_clip_version, sizes
from ovoad_model.open_clip_encoder.notes import Trial, write_trial


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OVOAD_CACHE", str(tmp_path / "cache"))


def test_lists_our_own_and_open_clips(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("embedded\n  input        260 x 260 pixels")
    assert "ViT-B-16-SigLIP2+ " in printed
    assert "openai, laion400m_e31 and 13 more" in printed


def test_it_imports_no_torch() -> None:
    program = (
        "import sys; from ovoad_model.encoders_command import main; main(['siglip2']);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], check=False, capture_output=True)
    assert done.returncode == 0


def test_a_part_of_a_name_lists_those_with_all_tags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vit-b-16-siglip2-256"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == [
        *("ViT-B-16-SigLIP2-256+", "256", "92.9", "282.3", "768", "768", "webli"),
    ]
    assert main(["no-such-model"]) == 0
    assert capsys.readouterr().out.endswith("  none\n")


def test_cached_weights_have_a_star(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--cached"]) == 0
    assert capsys.readouterr().out.endswith("  none\n")
    repository = tmp_path / "hub" / "models--timm--ViT-B-16-SigLIP2" / "snapshots" / "abc"
    repository.mkdir(parents=True)
    (repository / "open_clip_model.safetensors").write_bytes(b"x")
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    assert main(["--cached"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("768  webli*")


def test_measured_times_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trial = Trial("open_clip:ViT-B-16/openai", {"torch": 300.0, "openvino": 200.04})
    write_trial(tmp_path / "cache", "this machine", trial)
    assert main(["ViT-B-16"]) == 0
    assert capsys.readouterr().out.endswith(
        "  open_clip:ViT-B-16/openai  openvino 200.0, torch 300.0\n"
    )


def test_template_sets_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--templates", "paper"]) == 0
    assert capsys.readouterr().out == "a photo of action {}\n"


def test_without_open_clip_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> None:
        raise MissingRuntimeError("open_clip_torch")

    monkeypatch.setattr(encoders_command, "architectures", absent)
    assert main(["--open-clip"]) == 0
    assert "not installed: pip install 'ovoad[model]'" in capsys.readouterr().out


def test_the_table_of_sizes_knows_every_model_of_its_version() -> None:
    path = Path(encoders_command.__file__).parent / "open_clip_encoder" / "sizes.json"
    if json.loads(path.read_text())["open_clip"] != open_clip_version():
        pytest.skip("another version of open_clip is installed")
    assert set(sizes()) == set(architectures())
    size = sizes()["ViT-B-16"]
    assert (size.image_millions, size.feature_width, size.embedding_width) == (86.2, 768, 512)


def test_lists_equal_open_clips_own() -> None:
    import open_clip

    assert set(architectures()) == set(open_clip.list_models())
    ours = {(model.name, tag) for model in architectures().values() for tag in model.tags}
    assert ours == set(open_clip.list_pretrained())
