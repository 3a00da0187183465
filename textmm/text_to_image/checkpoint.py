"""A generator as a folder: config.json and model.safetensors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from safetensors.torch import load_file, save_file

from textmm.checkpoint import write_atomically
from textmm.config import from_mapping
from textmm.text_to_image.autoencoder import Autoencoder
from textmm.text_to_image.config import AutoencoderConfig, FlowConfig
from textmm.text_to_image.flow import Flow


@dataclass(frozen=True)
class LoadedGenerator:
    autoencoder: Autoencoder
    flow: Flow
    words: str
    """Name of the model whose text trunks read the words."""
    generator_id: str
    """Name and a hash over configuration and weights."""


def save(
    folder: Path, autoencoder: Autoencoder, flow: Flow, *, name: str, words: str, least_score: float = -1.0
) -> None:
    """Write the folder, each file whole; weights as float16. `least_score`: see GeneratorRecipe."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"autoencoder": autoencoder, "flow": flow}
    tensors = {
        f"{part}.{key}": value.detach().cpu().half().contiguous()
        for part, module in parts.items()
        for key, value in module.state_dict().items()
        if value.is_floating_point()
    }
    write_atomically(folder / "model.safetensors", lambda path: save_file(tensors, path))
    said = {
        "name": name,
        "words": words,
        "least_score": least_score,
        "autoencoder": asdict(autoencoder.config),
        "flow": asdict(flow.config),
    }
    write_atomically(folder / "config.json", lambda path: path.write_text(json.dumps(said, indent=2) + "\n"))


def load(name: str) -> LoadedGenerator:
    """The generator `name`: a folder that `save` wrote, or a bundled one. Raises ValueError for an unknown name."""
    folder = find(name)
    said = json.loads((folder / "config.json").read_text())
    autoencoder = Autoencoder(from_mapping(AutoencoderConfig, said["autoencoder"], where="autoencoder."))
    flow = Flow(from_mapping(FlowConfig, said["flow"], where="flow."))
    state = load_file(folder / "model.safetensors")
    for part, module in (("autoencoder.", autoencoder), ("flow.", flow)):
        own = {k.removeprefix(part): v.float() for k, v in state.items() if k.startswith(part)}
        missing, unexpected = module.load_state_dict(own, strict=False)
        wrong = [key for key in missing if not key.endswith("num_batches_tracked")] + list(unexpected)
        if wrong:
            raise ValueError(f"{folder} does not fit its own config.json: {', '.join(wrong[:3])} …")
    return LoadedGenerator(autoencoder.eval(), flow.eval(), said["words"], generator_id(folder))


def find(name: str) -> Path:
    """The folder of generator `name`. ValueError when there is none."""
    bundled = Path(str(resources.files("textmm"))) / "generators"
    for folder in (Path(name), bundled / name):
        if (folder / "config.json").is_file():
            return folder
    has = ", ".join(sorted(p.parent.name for p in bundled.glob("*/config.json"))) or "none"
    raise ValueError(
        f"there is no generator {name!r}: give a folder with config.json or a bundled one ({has})"
    )


def generator_id(folder: Path) -> str:
    """`mini-draw-3f2a9c41`: the name and a hash over everything that a drawn picture depends on."""
    said = json.loads((folder / "config.json").read_text())
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    digest.update((folder / "model.safetensors").read_bytes())
    return f"{said['name']}-{digest.hexdigest()[:8]}"
