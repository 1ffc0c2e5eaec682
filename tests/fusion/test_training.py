"""Training: the loss by hand, stops and starts, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from miner_diag.fusion import (
    ROWS,
    Fusion,
    FusionConfig,
    FusionError,
    FusionTrainOptions,
    MaskOptions,
    TuningOptions,
    build_fusion,
    encode,
    fit_fusion,
    ndcg_of,
    train,
    tune_all,
)
from miner_diag.fusion import training as training_module
from miner_diag.fusion.training import batch_loss
from miner_diag.probes import RetrievalData
from miner_diag.retrieval import Relevance, ndcg_at_k, score_all
from tests.fusion.helpers import ArrayStore, content_of, make_probes, materials_of, plant, retrieval_data

QUICK = FusionTrainOptions(
    epochs=5, batch_size=5, negatives=20, patience=5, learning_rate=3e-3, weight_learning_rate=3e-2
)
"""Eight steps an epoch on forty pairs."""
NO_HARD = np.zeros((0, 0), dtype=np.int64)


@pytest.fixture
def fusion():
    return start_of()


def start_of(layers=(0, 1, 4), mask="adaptive", **config):
    """The backbone, unless `config` says otherwise."""
    config = {"inner_weight": 0.0} | config
    return build_fusion(make_probes(), layers, FusionConfig(**config), MaskOptions(mask=mask), np.random.default_rng(0))


@pytest.fixture
def last_kept(monkeypatch):
    """Each epoch seems better than the one before, so the last one is kept."""
    rising = iter(range(10_000))
    monkeypatch.setattr(training_module, "ndcg_of", lambda *args: np.array([float(next(rising))]))


# --- the loss


def slow_loss(queries, pages, pairs, answers, looks, candidates, temperature, back=0.0):
    """Mean of -log softmax over all cells by two loops; `answers` are (query, page), `looks` groups of equal pages."""

    def answered(query, page):
        return any(q == query and looks[p] == looks[page] for q, p in answers)

    def cosine(query, page):
        return float(queries[query] @ pages[page]) / temperature

    to_pages, to_queries = [], []
    for query, page in pairs:
        negatives = [other for other in candidates if other != page and not answered(query, other)]
        total = sum(math.exp(cosine(query, other)) for other in [page, *negatives])
        to_pages.append(math.log(total) - cosine(query, page))
        negatives = [other for other, _ in pairs if not answered(other, page)]
        total = sum(math.exp(cosine(other, page)) for other in [query, *negatives])
        to_queries.append(math.log(total) - cosine(query, page))
    return (1 - back) * np.mean(to_pages) + back * np.mean(to_queries)


FOUR = {
    # page 3 looks like page 2, and query 3 has two right pages
    "false negatives": [(0, 0), (1, 1), (2, 2), (3, 4), (3, 5)],
    # queries 0 and 1 ask for one page
    "a page asked for twice": [(0, 0), (1, 0), (2, 2), (3, 4)],
}


@pytest.fixture(params=FOUR)
def four(request, rng, one_thread):
    """Four queries and seven pages; the last has no query."""
    answers = FOUR[request.param]
    queries, pages = (rng.normal(size=(n, 5, 16)).astype(np.float32) for n in (4, 7))
    relevance = Relevance.of([{p: 1 for q, p in answers if q == query} for query in range(4)], n_pages=7)
    split = RetrievalData.of(queries, pages, relevance, list("abccdef"))
    return split, answers, [0, 1, 2, 2, 3, 4, 5]


def loss_of(system, split, answers, options, hard=NO_HARD):
    rows = tuple(np.array(side) for side in zip(*answers, strict=True))
    return batch_loss(system, split, rows, options, np.random.default_rng(0), "cpu", hard).item()


@pytest.mark.parametrize("negatives", [0, 100])
def test_loss_by_two_loops(four, negatives):
    split, answers, looks = four
    system = start_of(inner_weight=0.4)
    options = replace(QUICK, negatives=negatives, temperature=0.1)
    queries, pages = (side.astype(np.float64) for side in encode(system, split))
    candidates = sorted({page for _, page in answers}) if negatives == 0 else range(7)
    expected = slow_loss(queries, pages, answers, answers, looks, candidates, 0.1)
    assert loss_of(system, split, answers, options) == pytest.approx(expected, rel=1e-5)
    # the masking matters: with every other page as a negative the loss is another
    unmasked = slow_loss(queries, pages, answers, [], looks, candidates, 0.1)
    assert unmasked > expected + 1e-3 or answers == FOUR["a page asked for twice"]


def test_hard_negatives_stand_against_all_queries_of_the_batch(four):
    split, answers, looks = four
    system, options = start_of(inner_weight=0.4), replace(QUICK, negatives=0, temperature=0.1)
    queries, pages = (side.astype(np.float64) for side in encode(system, split))
    batch, hard = {page for _, page in answers}, np.array([[6, -1], [-1, -1], [3, 6], [1, -1]])
    expected = slow_loss(queries, pages, answers, answers, looks, sorted({*batch, 6, 3, 1}), 0.1)
    loss = loss_of(system, split, answers, options, hard)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss > loss_of(system, split, answers, options) + 1e-4  # without them it is another


def test_mined_negatives_are_those_of_the_options(small, monkeypatch):
    mined, seen = np.full((40, 3), -1), []
    monkeypatch.setattr(training_module, "mine_hard_negatives", lambda *args: (seen.append(args[1:]), mined)[1])
    train(start_of(), small, small, replace(QUICK, epochs=1, hard_negatives=3, guard=0.7))
    assert seen == [(3, 0.7)]


def test_loss_both_ways_by_two_loops(four):
    split, answers, looks = four
    system = start_of(inner_weight=0.4)
    queries, pages = (side.astype(np.float64) for side in encode(system, split))
    for back in (0.3, 1.0):
        expected = slow_loss(queries, pages, answers, answers, looks, range(7), 0.1, back)
        options = replace(QUICK, negatives=100, temperature=0.1, page_to_query=back)
        assert loss_of(system, split, answers, options) == pytest.approx(expected, rel=1e-5)


def test_mrl_loss_is_the_mean_over_the_prefixes(four):
    split, answers, looks = four
    system = start_of(inner_weight=0.4)
    queries, pages = (side.astype(np.float64) for side in encode(system, split))
    parts = []
    for width in (16, 8, 4, 2):
        short = [side[:, :width] / np.linalg.norm(side[:, :width], axis=1, keepdims=True) for side in (queries, pages)]
        parts.append(slow_loss(*short, answers, answers, looks, range(7), 0.1))
    options = replace(QUICK, negatives=100, temperature=0.1, mrl=True)
    assert loss_of(system, split, answers, options) == pytest.approx(np.mean(parts), rel=1e-5)


def test_training_the_prefixes_helps_them(one_thread, last_kept):
    data = plant()
    system = start_of()
    options = FusionTrainOptions(epochs=10, batch_size=100, patience=10, learning_rate=1e-2, weight_learning_rate=5e-2)
    plain, nested = (train(system, data.train, data.train, replace(options, mrl=mrl)) for mrl in (False, True))

    def prefix_loss(trained, width):
        queries, pages = encode(trained, data.train)
        short = [side[:, :width] / np.linalg.norm(side[:, :width], axis=1, keepdims=True) for side in (queries, pages)]
        scores = torch.from_numpy(short[0] @ short[1].T) / options.temperature
        rows, answers = (torch.from_numpy(side) for side in data.train.pairs)
        return (scores.logsumexp(1)[rows] - scores[rows, answers]).mean().item()

    for width in (2, 4, 8):
        before, without, prefixed = (prefix_loss(one, width) for one in (system, plain.system, nested.system))
        assert prefixed < before and prefixed < without, width


# --- what training keeps


def test_what_is_kept_is_the_best_epoch_and_its_own_numbers(small, fusion):
    fitted = train(fusion, small, small, QUICK)
    assert len(fitted.curve) == len(fitted.loss) + 1 == 6
    assert fitted.best_epoch == int(np.argmax(fitted.curve)) > 0
    assert fitted.score == pytest.approx(max(fitted.curve), abs=1e-12)
    np.testing.assert_array_equal(ndcg_of(fitted.system, small), fitted.ndcg)
    queries, pages = encode(fitted.system, small)
    np.testing.assert_allclose(ndcg_at_k(score_all(queries, pages), small.relevance), fitted.ndcg, atol=1e-9)
    assert fitted.loss[-1] < fitted.loss[0]
    assert not any(parameter.requires_grad for parameter in fitted.system.parameters())


def test_the_system_that_was_given_stays_as_it_was(small, fusion):
    before = content_of(fusion)
    fitted = train(fusion, small, small, QUICK)
    assert content_of(fusion) == before != content_of(fitted.system)


def test_training_that_does_not_help_gives_the_backbone(small, fusion, rng):
    fitted = train(fusion, small.shuffled(rng), small, replace(QUICK, learning_rate=0.5, patience=1))
    assert fitted.best_epoch == 0 and len(fitted.loss) == 1  # stopped when its patience was over
    assert content_of(fitted.system) == content_of(fusion)
    assert fitted.score == pytest.approx(ndcg_of(Fusion.identity(5, 16), small).mean(), abs=1e-12)


def test_frozen_parts_stay(small, last_kept):
    start = start_of(train_probes=False, bias=False, final="as_is")
    fitted = train(start, small, small, QUICK)
    same = {name for name, tensor in content_of(start).items() if content_of(fitted.system)[name] == tensor}
    assert same == {"maps.0", "maps.1", "maps.2", "bias", "masks"}


def test_masked_neurons_learn_nothing(small, last_kept):
    start = start_of(mask="fixed", inner_weight=0.3)
    fitted = train(start, small, small, QUICK).system
    for before, after, mask in zip(start.maps, fitted.maps, start.masks, strict=True):
        dropped = mask.numpy() == 0
        np.testing.assert_array_equal(after.numpy()[:, dropped], before.detach().numpy()[:, dropped])
        assert (after.numpy()[:, ~dropped] != before.detach().numpy()[:, ~dropped]).any()


def test_the_seed_decides(small, fusion):
    first, again = train(fusion, small, small, QUICK), train(fusion, small, small, QUICK)
    assert (
        content_of(first.system) == content_of(again.system) and first.curve == again.curve and first.loss == again.loss
    )
    assert content_of(train(fusion, small, small, replace(QUICK, seed=1)).system) != content_of(first.system)


def test_no_epochs_or_no_parameters_is_an_evaluation(small, fusion):
    for system, options in ((fusion, replace(QUICK, epochs=0)), (Fusion.identity(5, 16), QUICK)):
        fitted = train(system, small, small, options)
        assert (fitted.best_epoch, fitted.loss, len(fitted.curve)) == (0, (), 1)


@pytest.mark.parametrize(
    ("n_pairs", "batch_size", "n_steps", "size"),
    [(40, 5, 8, 5), (40, 4, 10, 4), (40, 512, 8, 5), (18, 512, 9, 2), (3, 512, 1, 2), (2, 512, 1, 2)],
)
def test_few_pairs_get_smaller_batches_instead_of_fewer_steps(
    small, fusion, monkeypatch, n_pairs, batch_size, n_steps, size
):
    steps = []
    monkeypatch.setattr(training_module, "batch_loss", lambda *args: (steps.append(args[2]), batch_loss(*args))[1])
    few = retrieval_data(small.queries[:n_pairs], small.pages)
    train(fusion, few, small, replace(QUICK, batch_size=batch_size, epochs=1))
    assert [len(queries) for queries, _ in steps] == [size] * n_steps
    drawn = np.concatenate([queries for queries, _ in steps])
    assert len(set(drawn)) == len(drawn)  # no pair twice in an epoch
    assert all((queries == pages).all() for queries, pages in steps)  # query i asks for page i


def test_a_store_gives_what_memory_gives(small, fusion):
    on_disk = replace(small, queries=ArrayStore(small.queries), pages=ArrayStore(small.pages))
    in_memory, from_store = train(fusion, small, small, QUICK), train(fusion, on_disk, on_disk, QUICK)
    assert content_of(in_memory.system) == content_of(from_store.system)
    assert in_memory.curve == from_store.curve and in_memory.loss == from_store.loss
    assert not on_disk.queries.loaded and not on_disk.pages.loaded  # read row by row


# --- stopped and resumed


class StoppedError(Exception):
    """Stands for a killed process."""


def stop_after(monkeypatch, n_steps):
    done = []

    def stopping(*args):
        if len(done) == n_steps:
            raise StoppedError
        done.append(1)
        return batch_loss(*args)

    monkeypatch.setattr(training_module, "batch_loss", stopping)


@pytest.mark.parametrize("n_steps", [3, 8, 13, 39])
def test_a_stopped_training_ends_with_the_same_bytes(small, fusion, tmp_path, monkeypatch, n_steps):
    finished = train(fusion, small, small, QUICK)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        stop_after(patch, n_steps)
        train(fusion, small, small, QUICK, state=tmp_path / "state")
    assert (tmp_path / "state").exists() == (n_steps >= 8)
    resumed = train(fusion, small, small, QUICK, state=tmp_path / "state")
    assert content_of(resumed.system) == content_of(finished.system)
    assert (resumed.curve, resumed.loss, resumed.best_epoch) == (finished.curve, finished.loss, finished.best_epoch)
    np.testing.assert_array_equal(resumed.ndcg, finished.ndcg)


def test_a_training_stopped_twice_ends_with_the_same_bytes(small, fusion, tmp_path, monkeypatch):
    finished = train(fusion, small, small, QUICK)
    for n_steps in (12, 12):
        with monkeypatch.context() as patch, pytest.raises(StoppedError):
            stop_after(patch, n_steps)
            train(fusion, small, small, QUICK, state=tmp_path / "state")
    assert content_of(train(fusion, small, small, QUICK, state=tmp_path / "state").system) == content_of(
        finished.system
    )


def test_a_finished_training_is_not_done_again(small, fusion, tmp_path, monkeypatch):
    finished = train(fusion, small, small, QUICK, state=tmp_path / "state")
    stop_after(monkeypatch, 0)
    again = train(fusion, small, small, QUICK, state=tmp_path / "state")
    assert content_of(again.system) == content_of(finished.system) and again.curve == finished.curve
    assert again.seconds == pytest.approx(finished.seconds, abs=0.5)


def test_the_state_of_other_options_is_put_aside(small, fusion, tmp_path, caplog):
    train(fusion, small, small, QUICK, state=tmp_path / "state")
    for number, other in enumerate(({"seed": 1}, {"learning_rate": 1e-4}, {"mrl": True}), start=1):
        options = replace(QUICK, **other)
        anew = train(fusion, small, small, options, state=tmp_path / "state")
        assert content_of(anew.system) == content_of(train(fusion, small, small, options).system)
        assert f"state is the state of another training; it is put aside as state-aside-{number}" in caplog.text
    train(fusion, small, small, options, state=tmp_path / "state", name="final_layer_head")
    assert (tmp_path / "state-aside-4").exists()


@pytest.mark.parametrize("what", ["layers", "mask", "final", "pairs"])
def test_the_state_of_another_fusion_is_put_aside(small, fusion, tmp_path, rng, what, caplog):
    """All start as the backbone, so the first score does not tell them apart."""
    train(fusion, small, small, QUICK, state=tmp_path / "state")
    others = {"layers": {"layers": (2, 3, 4)}, "mask": {"mask": "fixed"}, "final": {"bias": False}, "pairs": {}}
    other = start_of(**others[what])
    fitted_to = small.shuffled(rng) if what == "pairs" else small
    anew = train(other, fitted_to, small, QUICK, state=tmp_path / "state")
    assert "is the state of another training" in caplog.text
    assert content_of(anew.system) == content_of(train(other, fitted_to, small, QUICK).system)


@pytest.mark.parametrize("damage", [b"", b"no state", None])
def test_a_file_that_is_no_state_is_put_aside(small, fusion, tmp_path, damage, caplog):
    path = tmp_path / "state"
    finished = train(fusion, small, small, QUICK, state=path if damage is None else None)
    path.write_bytes(path.read_bytes()[:-10] if damage is None else damage)
    anew = train(fusion, small, small, QUICK, state=path)
    assert "state is damaged (" in caplog.text and content_of(anew.system) == content_of(finished.system)


# --- on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_every_row_trains_on_a_gpu_and_comes_back_to_the_cpu(small):
    for system in tune_all(ROWS, materials_of(small), small, QUICK, TuningOptions(1, (1.0,)), device="cuda"):
        trained = system.runs[0].system
        assert {tensor.device.type for tensor in trained.state_dict().values()} <= {"cpu"}, system.name
        for on_cpu, on_gpu in zip(encode(trained, small), encode(trained, small, "cuda"), strict=True):
            np.testing.assert_allclose(on_gpu, on_cpu, atol=1e-4, err_msg=system.name)


# --- bad input


def test_a_loss_that_is_not_finite_names_step_and_epoch(small, fusion, monkeypatch):
    spoilt = small.queries.copy()
    spoilt[:, 1] = np.nan
    with pytest.raises(FusionError, match=r"the loss of head is nan at step 0 of epoch 1; lower the learning rates"):
        train(fusion, replace(small, queries=spoilt), small, QUICK, name="head")
    losses = iter([1.0] * 10 + [float("inf")])
    monkeypatch.setattr(training_module, "batch_loss", lambda *args: batch_loss(*args) * next(losses))
    with pytest.raises(FusionError, match=r"the loss of fusion is inf at step 2 of epoch 2; .* raise the temperature"):
        train(fusion, small, small, QUICK)


def test_fewer_than_two_pairs_are_refused(small, fusion):
    one = retrieval_data(small.queries[:1], small.pages[:3])
    with pytest.raises(FusionError, match="at least 2 training pairs are needed, one has no negatives; got 1"):
        train(fusion, one, small, QUICK)


def test_no_validation_query_is_refused(small, fusion):
    none = Relevance(np.zeros(0, int), np.zeros(0, int), np.zeros(0), (), len(small.pages))
    empty = replace(small, queries=small.queries[:0], relevance=none, documents=())
    with pytest.raises(FusionError, match="validation must hold at least one query: it decides when training stops"):
        train(fusion, small, empty, QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0; got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0; got nan"),
        ({"weight_learning_rate": float("inf")}, "weight_learning_rate must be above 0; got inf"),
        ({"page_to_query": 1.5}, "page_to_query must be between 0 and 1; got 1.5"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0; got -1.0"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"negatives": -1}, "negatives must be at least 0; got -1"),
        ({"hard_negatives": -1}, "hard_negatives must be at least 0; got -1"),
        ({"hard_negatives": 4, "guard": 0.0}, "guard must be above 0 and at most 1; got 0.0"),
        ({"guard": 0.5}, "guard has no effect without hard_negatives; leave it out"),
        ({"epochs": -1}, "epochs must be at least 0; got -1"),
        ({"patience": 0}, "patience must be at least 1; got 0"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        FusionTrainOptions(**options)


# --- fit_fusion


def test_fit_fusion_is_build_and_train(small, tmp_path):
    probes = make_probes((0, 1, 4))
    config = FusionConfig(start="identity", inner_weight=0.0)
    fitted = fit_fusion(small, small, probes, QUICK, config=config, state=tmp_path / "state")
    assert content_of(fitted.system) == content_of(train(start_of(), small, small, QUICK).system)
    assert fitted.system.layers == (0, 1, 4) and (tmp_path / "state").exists()
    other = fit_fusion(
        small,
        small,
        probes,
        replace(QUICK, epochs=1),
        layers=(2, 4),
        config=FusionConfig(final="gate"),
        mask=MaskOptions(mask="fixed", share=0.25),
    ).system
    assert (other.layers, other.kinds) == ((2, 4), ("base", "base"))
    assert other.masks.sum(dim=1).tolist() == [4, 16]


def test_fit_fusion_refuses_what_cannot_be_fused(small):
    with pytest.raises(FusionError, match="layers must be at most 5, as many as the backbone has; got 6"):
        fit_fusion(small, small, make_probes(), layers=(0, 1, 2, 3, 4, 5))
    nothing = replace(make_probes(), selected=())
    with pytest.raises(FusionError, match="layers must hold at least the final layer; got none"):
        fit_fusion(small, small, nothing)


def test_fit_fusion_refuses_an_empty_selection(small):
    with pytest.raises(FusionError, match="layers must hold at least the final layer; got none"):
        fit_fusion(small, small, make_probes(), replace(QUICK, epochs=0), layers=())
