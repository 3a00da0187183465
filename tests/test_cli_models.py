import re
from pathlib import Path

from tests.conftest import Run
from textmm import checkpoint


def test_models_list_tells_id_and_what_each_bundled_model_lacks(run: Run) -> None:
    done = run("models", "list")

    lines = done.out.splitlines()
    expected = [re.escape(checkpoint.model_id(checkpoint.find(n))) for n in checkpoint.bundled_names()]
    assert done.code == 0
    assert len(lines) == len(expected)
    for line, model in zip(lines, expected, strict=True):
        assert re.fullmatch(
            rf"{model}  \d+ dimensions  (ready|lacks .+: run `textmm models fetch \w+`)", line
        )


def test_models_fetch_brings_nothing_for_a_model_without_pretrained_parts(run: Run, tiny: Path) -> None:
    done = run("models", "fetch", tiny)

    assert (done.code, done.out, done.err) == (0, "", "")


def test_models_fetch_of_an_unknown_model_is_one_line(run: Run) -> None:
    done = run("models", "fetch", "huge")

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("textmm: there is no model 'huge'")


def test_a_model_that_was_put_wrongly_does_not_hide_the_others(run: Run, tmp_path: Path) -> None:
    wrong = (
        tmp_path / "data" / "models" / "ViT-B-32" / "openai"
    )  # trained with quick_gelu, under the other name
    wrong.mkdir(parents=True)
    (wrong / "open_clip_model.safetensors").write_bytes(b"not read")

    done = run("models", "list")

    assert done.code == 0
    assert len(done.out.splitlines()) == len(checkpoint.bundled_names()) + 1
    assert done.out.splitlines()[-1].startswith(
        "ViT-B-32/openai: ViT-B-32/openai was trained with quick_gelu"
    )
