"""Pictures into words: CoCa's decoder here beside open_clip's own `generate`, and whole captions of `mini`.

CoCa ViT-B-32 with random weights written here, float32, the same pictures (noise), threads and 30 tokens for both: no
text may end earlier. Rounds of the two alternate; figures are medians. `given tokens`: the pictures are encoded before.
`with encoding`: from pixels. What open_clip says greedily is compared with what we say; its beams are not comparable,
since it adds logits where others add log probabilities. Both sides' speeds move with the machine, less so their ratio.

Good: given the tokens, at least 10 times at 6 beams and 5 times greedily. `mini` from pictures: 40 captions/s on 2
cores in batches of 32.

open_clip's `generate` needs transformers below 4.50 (it imports a class that later ones lack), so it has an environment
of its own:

    python3 -m venv peers && peers/bin/pip install torch torchvision open_clip_torch 'transformers<4.50'
    python -m tests.benchmarks.bench_caption --peer-python peers/bin/python
    python -m tests.benchmarks.bench_caption --mini --data '../shared/data/flickr8k/val-*.tar'
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.benchmarks.measure import median, print_json
from textmm import open_clip_config
from textmm.generate import Decoding, decode
from textmm.model import TextMultiModalModel
from textmm.open_clip_keys import from_open_clip

ROOT = Path(__file__).parents[2]
MODEL = "coca_ViT-B-32"
BATCH, TOKENS = 8, 30
START, END, PAD = 49406, 49407, 0
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beams", type=int, nargs="+", help="[default: 1 6; for --mini 1 3 5 8]")
    parser.add_argument("--mini", action="store_true", help="captions of `mini` instead")
    parser.add_argument("--data", default="", help="a source of pictures for --mini")
    parser.add_argument("--batch", type=int, default=32, help="pictures a call, for --mini")
    arguments = parser.parse_args()
    figures = bundled(arguments) if arguments.mini else compared(arguments)
    print_json("caption", vars(arguments), {**figures, "load_average": os.getloadavg()[0]})


def compared(arguments: argparse.Namespace) -> Row:
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        model, pictures = write_model(Path(name))
        with Peer(arguments, Path(name)) as peer, torch.inference_mode():
            return {
                "results": [
                    beside(model, pictures, peer, b, arguments.rounds) for b in arguments.beams or (1, 6)
                ]
            }


def write_model(folder: Path) -> tuple[TextMultiModalModel, Tensor]:
    """Our model and pictures [B, 3, 224, 224]; the same for open_clip in the folder."""
    import open_clip

    torch.manual_seed(0)
    theirs: Any = open_clip.create_model(MODEL).eval()
    with torch.no_grad():
        theirs.text_decoder.text_projection.normal_(std=0.04)  # open_clip leaves it as the memory was
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, folder / "model.safetensors")
    pictures = torch.randn(BATCH, 3, 224, 224)
    save_file({"pictures": pictures}, folder / "pictures.safetensors")
    described = open_clip_config.architecture(MODEL)
    assert described is not None
    config = open_clip_config.model_config(described, {})
    assert config is not None
    model = TextMultiModalModel(config).eval()
    model.load_state_dict(from_open_clip(theirs.state_dict(), model.state_dict()))
    return model, pictures


class Peer:
    """open_clip in a process of its own (peers/coca.py)."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
        self._process = subprocess.Popen(
            [arguments.peer_python, "tests/benchmarks/peers/coca.py"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask({"folder": str(folder), "model": MODEL, "threads": arguments.threads, "tokens": TOKENS})

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def generate(self, beams: int, *, encode: bool) -> tuple[float, list[list[int]]]:
        """Seconds, and the words with start and end."""
        said = self._ask({"beams": beams, "encode": encode})
        return said["seconds"], said["words"]

    def _ask(self, question: Row) -> Row:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            sys.exit("open_clip's process ended; is its environment as the docstring says?")
        answer: Row = json.loads(line)
        return answer


def beside(model: TextMultiModalModel, pictures: Tensor, peer: Peer, beams: int, rounds: int) -> Row:
    assert model.decoder is not None
    how = Decoding(
        start_token_id=START,
        end_token_id=END,
        pad_token_id=PAD,
        beams=beams,
        min_length=TOKENS - 1,
        max_length=TOKENS,
    )
    row: Row = {"beams": beams, "batch": BATCH, "tokens": TOKENS}
    tokens = model.encode_image(pictures).tokens
    words = decode(model.decoder, tokens, how)  # warm
    assert all(len(said) == TOKENS - 1 for said in words)
    for name, encode in (("given tokens", False), ("with encoding", True)):
        ours, theirs = [], []
        for _ in range(rounds):
            seconds, said = peer.generate(beams, encode=encode)
            theirs.append(seconds)
            begin = time.perf_counter()
            decode(model.decoder, model.encode_image(pictures).tokens if encode else tokens, how)
            ours.append(time.perf_counter() - begin)
        times = median(theirs) / median(ours)
        row[name] = {"ours_s": median(ours), "open_clip_s": median(theirs), "times": times}
        print(
            f"{beams} beams, {name}: {median(ours):.3f} s, open_clip {median(theirs):.3f} s: {times:.1f} times"
        )
    if beams == 1:  # its last token is always the end
        row["same_words"] = [s[1 : TOKENS - 1] for s in said] == [w[: TOKENS - 2] for w in words]
        print(f"the same words: {row['same_words']}", flush=True)
    return row


def bundled(arguments: argparse.Namespace) -> Row:
    from search.cli.context import load_encoder
    from search.config import Config
    from textmm.encoder import CaptionDecoding
    from textmm.sources import read_bytes, read_source
    from textmm.transforms import decode_image

    encoder = load_encoder(Config())
    items = list(itertools.islice(read_source(arguments.data), arguments.batch))
    images = [encoder.fit(decode_image(read_bytes(item.locator))) for item in items]
    seconds: dict[int, list[float]] = {beams: [] for beams in arguments.beams or (1, 3, 5, 8)}
    for beams in seconds:
        encoder.caption_images(images, how=CaptionDecoding(beams=beams))
    for _ in range(max(5, arguments.rounds)):
        for beams, rounds in seconds.items():
            begin = time.perf_counter()
            encoder.caption_images(images, how=CaptionDecoding(beams=beams))
            rounds.append(time.perf_counter() - begin)
    rates = {beams: len(images) / median(rounds) for beams, rounds in seconds.items()}
    for beams, rate in rates.items():
        print(f"mini: {rate:.1f} captions/s, {len(images)} pictures a call, {beams} beams")
    return {"captions_per_s": rates, "seconds": seconds}


if __name__ == "__main__":
    main()
