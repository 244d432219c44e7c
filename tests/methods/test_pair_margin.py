"""The margin of the pair model: the trainer's loss is ours, with and without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rollwright.learner import SftSettings
from rollwright.maths import margin_ranking_loss
from rollwright.methods import fit_pairs
from rollwright.models.tiny_model import make_tiny_model

pytest.importorskip("trl")


def first_loss(start: Path, folder: Path, margin: float, monkeypatch: pytest.MonkeyPatch) -> tuple[float, float]:
    """The trainer's first loss, and ours of the scores that the model gave in that step."""
    from trl import RewardTrainer

    seen: list[tuple[float, float]] = []
    usual = RewardTrainer.compute_loss

    def noted(self, model, inputs, *args, **words):
        loss = usual(self, model, inputs, *args, **words)
        with torch.no_grad():
            scores = model(**{k: inputs[k] for k in ("input_ids", "attention_mask")}).logits[:, 0]
        better, worse = scores.chunk(2)
        value = loss[0] if isinstance(loss, tuple) else loss
        seen.append((float(value.detach()), float(margin_ranking_loss(better, worse, margin=margin).mean())))
        return loss

    monkeypatch.setattr(RewardTrainer, "compute_loss", noted)
    settings = SftSettings(epochs=1, batch_size=2, learning_rate=1e-3, precision="float32")
    fit_pairs([((5, 6, 7), (5, 8)), ((9,), (10, 11))], start, folder, settings, centre=0.0, seed=0, margin=margin)
    return seen[0]


def test_the_margin_reaches_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny_model(tmp_path / "tiny", texts=["a few words of it"], hidden=32, layers=1, context_length=32, seed=0)
    found = {}
    for margin in (0.0, 2.0):
        with monkeypatch.context() as patch:
            theirs, ours = first_loss(tmp_path / "tiny", tmp_path / f"fit{margin:g}", margin, patch)
        assert theirs == pytest.approx(ours, abs=1e-5)
        found[margin] = ours
    # log(1 + e^2) - log 2 where both scores are alike: an untrained head makes them nearly so.
    assert found[2.0] - found[0.0] == pytest.approx(1.43, abs=0.3)
