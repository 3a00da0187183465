from pathlib import Path

import numpy as np
import pytest

from textmm import checkpoint, validation
from textmm.encoder import Encoder
from textmm.model import TextMultiModalModel
from textmm.pairs import Pairs, PairSource
from textmm.recipe import Stage, Validation
from textmm.sources import read_bytes
from textmm.transforms import decode_image
from textmm.trunk_cache import LiveInputs

NO_TRUNKS = Path("no-trunks")
WATCHED = Stage(
    name="s", steps=1, batch_size=2, learning_rate=1.0, validate=Validation(source="captions.csv")
)


@pytest.fixture(scope="module")
def pairs(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    assert WATCHED.validate is not None
    drawings = tmp_path_factory.mktemp("drawings")
    return validation.read_pairs(WATCHED.validate, WATCHED, data=pictures, drawings=drawings, seed=1)


def share_in_first_ten(scores: np.ndarray) -> float:
    """Of square scores, the share of rows whose own column is among the ten highest."""
    ranks = [sum(row[j] > row[i] for j in range(len(row))) for i, row in enumerate(scores)]
    return float(np.mean([rank < 10 for rank in ranks]))


def test_recall_is_that_of_the_encoder_over_the_same_pictures(other_folder: Path, pairs: Pairs) -> None:
    loaded = checkpoint.load(str(other_folder), NO_TRUNKS)
    assert isinstance(loaded.model, TextMultiModalModel)
    inputs = LiveInputs(loaded.model, pairs, loaded.tokenizer)

    recall = validation.recall_at_10(loaded.model, inputs, pairs)

    encoder = Encoder.load(str(other_folder), NO_TRUNKS, threads=1)
    images = encoder.encode_images([decode_image(read_bytes(item.locator)) for item in pairs.items])
    scores = encoder.encode_texts([item.texts[0] for item in pairs.items]) @ images.T
    assert recall == pytest.approx((share_in_first_ten(scores) + share_in_first_ten(scores.T)) / 2)


def test_a_lower_loss_and_a_higher_recall_are_better_and_the_first_is_always() -> None:
    assert validation.is_better("loss", 1.0, None) and validation.is_better("recall@10", 0.0, None)
    assert validation.is_better("loss", 1.0, 1.1) and not validation.is_better("loss", 1.1, 1.1)
    assert validation.is_better("recall@10", 0.6, 0.5) and not validation.is_better("recall@10", 0.5, 0.5)


def test_pictures_looked_at_are_spread_over_the_source(pictures: Path, tmp_path: Path) -> None:
    rows = "\n".join(f"{i}.png,word {i}" for i in range(3 * validation.MOST))
    (tmp_path / "many.csv").write_text("path,text\n" + rows)
    source = PairSource(source="many.csv", share=1.0)
    many = Pairs((source,), (), data=tmp_path, drawings=tmp_path, seed=1)

    ids = validation.spread(many)

    assert len(ids) == validation.MOST
    assert set(np.diff(ids)) == {3}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metric": "accuracy"}, r"validate\.metric must be recall@10 or loss, got 'accuracy'"),
        ({"every": 0}, r"validate\.every and validate\.patience must be at least 1"),
        ({"patience": 0}, r"validate\.every and validate\.patience must be at least 1"),
    ],
)
def test_a_wrong_validation_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Validation(source="x", **wrong)  # type: ignore[arg-type]


def test_recall_cannot_watch_a_stage_that_learns_captions_alone() -> None:
    with pytest.raises(ValueError, match="does not train what recall@10 measures"):
        Stage(
            name="s",
            steps=1,
            batch_size=2,
            learning_rate=1.0,
            contrastive_loss_weight=0.0,
            caption_loss_weight=1.0,
            validate=Validation(source="x"),
        )
