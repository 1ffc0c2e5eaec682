"""How long training waits: as many epochs without a rise as patience says, and no more."""

import numpy as np
import pytest

from miner_diag.fusion import FusionConfig, FusionTrainOptions, MaskOptions, build_fusion, train
from miner_diag.fusion import training as training_module
from tests.fusion.helpers import make_probes

QUICK = FusionTrainOptions(epochs=12, batch_size=5, negatives=4)


@pytest.mark.parametrize(
    ("scores", "patience", "n_epochs", "best"),
    [
        ([0.5, 0.4, 0.4, 0.4, 0.4], 1, 1, 0),
        ([0.5, 0.4, 0.4, 0.4, 0.4], 3, 3, 0),
        ([0.5, 0.4, 0.6, 0.6, 0.5, 0.7], 2, 4, 2),  # as good as the best is no rise
        ([0.5, 0.4, 0.6, 0.6, 0.5, 0.7, 0.1, 0.1, 0.1], 3, 8, 5),
    ],
)
def test_training_ends_after_as_many_epochs_without_a_rise_as_patience_says(
    small, monkeypatch, scores, patience, n_epochs, best
):
    given = iter(scores)
    monkeypatch.setattr(training_module, "ndcg_of", lambda *args: np.array([next(given)]))
    fusion = build_fusion(make_probes(), (0, 4), FusionConfig(), MaskOptions(), np.random.default_rng(0))
    options = FusionTrainOptions(**{**vars(QUICK), "patience": patience})
    run = train(fusion, small, small, options)
    assert (len(run.loss), run.best_epoch) == (n_epochs, best)
    assert run.curve == tuple(scores[: n_epochs + 1]) and run.score == max(scores[: n_epochs + 1])
