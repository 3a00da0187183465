"""open_clip's CoCa `generate` in a process of its own: reads lines of JSON, answers each with a line of JSON.

The first line says where weights and pictures are, how many threads and tokens; the others what to do. Runs in an
environment that need not have this project's packages.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file

START, END = 49406, 49407


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    torch.set_num_threads(asked["threads"])
    folder = Path(asked["folder"])
    model: Any = open_clip.create_model(asked["model"]).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    pictures = load_file(folder / "pictures.safetensors")["pictures"]
    with torch.inference_mode():
        latent, tokens = model._encode_image(pictures)
    encode = model._encode_image

    def remembered(images: torch.Tensor, normalize: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        times = len(images) // len(tokens)
        return latent.repeat_interleave(times, 0), tokens.repeat_interleave(times, 0)

    say({"ready": True})
    for line in sys.stdin:
        task = json.loads(line)
        model._encode_image = encode if task["encode"] else remembered
        how = {"generation_type": "top_k", "top_k": 1} if task["beams"] == 1 else {"num_beams": task["beams"]}
        length = asked["tokens"]
        begin = time.perf_counter()
        with torch.inference_mode():
            words = model.generate(pictures, seq_len=length, min_seq_len=length - 1, **how)
        say({"seconds": time.perf_counter() - begin, "words": words.tolist()})


def say(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
