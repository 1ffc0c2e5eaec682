"""MINER's probes: what they give, their loss by a slow loop, what L1 and the cap do, stops and starts."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from miner_diag.probes import ProbeError, RetrievalData
from miner_diag.probes import gate_probes as module
from miner_diag.probes.gate_probes import GateProbeOptions, fit_gate_probes
from miner_diag.probes.hard_negatives import mine_hard_negatives
from miner_diag.retrieval import Relevance, ndcg_at_k
from tests.probes.helpers import retrieval_data

NORM = "normalized_projection"
LAYERS, KINDS = (0, 1, 1), ("base", "base", NORM)
QUICK = GateProbeOptions(hard_negatives=5, epochs=3, batch_size=10, learning_rate=1e-2, gate_learning_rate=5e-2)


def fit(data, options=QUICK, layers=LAYERS, kinds=KINDS, validation=None, **how):
    return fit_gate_probes(data, validation or data, layers, kinds, options, **how)


def arrays_of(probes):
    held = [probes.gates, probes.ndcg, probes.curve, probes.loss, probes.best_epoch, probes.temperature]
    return [array.tobytes() for array in (*held, *(matrix for matrix in probes.maps if matrix is not None))]


@pytest.fixture
def last_kept(monkeypatch):
    """Each epoch seems better than the one before, so the last one is kept."""
    rising = iter(range(100_000))
    monkeypatch.setattr(module, "ndcg_at_k", lambda scores, *rest: np.full(len(scores), float(next(rising))))


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def slow_z(probes, number, vectors, side):
    """z [N, D] of one probe, one item at a time: ``p * x``, or ``W~ (p * x)``."""
    options = probes.options
    if side == 0 and options.sides == "pages":
        return unit(vectors[:, -1].astype(np.float64))
    own = side if options.sides == "per_side" else 0
    gate, matrix = probes.gates[number][own].astype(np.float64), probes.maps[number]
    outputs = []
    for item in vectors[:, probes.layers[number]].astype(np.float64):
        x = item / math.sqrt((item**2).sum()) if options.unit_input else item
        z = np.array([p * value for p, value in zip(gate, x, strict=True)])
        if matrix is not None:
            rows = [np.float64(row) / math.sqrt((np.float64(row) ** 2).sum()) for row in matrix[own]]
            z = np.array([(row * z).sum() for row in rows])
        if matrix is None or options.unit_output:
            z = z / math.sqrt((z**2).sum())
        outputs.append(z)
    return np.array(outputs)


FORMS = [
    QUICK,
    replace(QUICK, unit_input=False),
    replace(QUICK, unit_output=True),
    replace(QUICK, sides="pages"),
    replace(QUICK, sides="per_side"),
    replace(QUICK, start="least_squares", sides="per_side", unit_input=False),
]


@pytest.mark.parametrize("options", FORMS)
def test_scores_are_those_of_the_equations(small, last_kept, options, monkeypatch):
    probes = fit(small, options)
    assert (probes.best_epoch == 3).all() and not np.allclose(probes.gates, 1)
    monkeypatch.undo()
    again = fit(small, options)
    best = again.best_epoch
    for number in range(3):
        z_query, z_page = (unit(slow_z(again, number, side, s)) for s, side in enumerate((small.queries, small.pages)))
        np.testing.assert_allclose(again.ndcg[number], ndcg_at_k(z_query @ z_page.T, small.relevance, 5), atol=1e-9)
        assert again.scores[number] == again.curve[:, number].max() == again.curve[best[number], number]


@pytest.mark.parametrize("options", FORMS)
def test_every_row_of_the_map_stays_at_unit_length(small, last_kept, options):
    probes = fit(small, replace(options, learning_rate=0.3))
    assert probes.maps[0] is probes.maps[1] is None
    assert probes.maps[2].shape == (2 if options.sides == "per_side" else 1, 6, 6)
    np.testing.assert_allclose(np.linalg.norm(probes.maps[2], axis=-1), 1, atol=1e-6)
    assert np.abs(probes.maps[2] - fit(small, replace(options, epochs=0)).maps[2]).max() > 0.1  # they were trained


def test_nothing_is_gated_at_the_start_and_the_map_follows_the_seed(small):
    first, same, other = (fit(small, replace(QUICK, epochs=0, seed=seed)) for seed in (0, 0, 1))
    assert (first.gates == 1).all() and first.loss.shape == (0, 3) and first.curve.shape == (1, 3)
    assert first.maps[2].tobytes() == same.maps[2].tobytes() != other.maps[2].tobytes()


def test_a_map_of_least_squares_starts_where_the_final_layer_is(rng, one_thread):
    """Layer 0 is the final layer, turned and stretched; the linear map back is the start."""
    meaning = rng.normal(size=(60, 8))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0] * np.geomspace(0.2, 5, 8)
    sides = []
    for _ in range(2):
        final = meaning + 0.5 * rng.normal(size=meaning.shape)
        sides.append(np.stack([final @ turn, final], axis=1).astype(np.float32))
    data = retrieval_data(*sides)
    scores = {
        start: fit(data, GateProbeOptions(start=start, epochs=0), (0,), (NORM,)).scores[0]
        for start in ("least_squares", "random")
    }
    assert scores["least_squares"] > scores["random"] + 0.1


# --- the loss


@pytest.fixture
def few(rng, one_thread):
    """Pages 2 and 3 look the same, query 3 has two answers, and queries 0 and 4 ask for one page."""
    answers = [{0}, {1}, {2}, {4, 5}, {0}]
    queries, pages = (rng.normal(size=(n, 3, 6)).astype(np.float32) for n in (5, 9))
    relevance = Relevance.of([dict.fromkeys(sorted(own), 1) for own in answers], n_pages=9)
    return RetrievalData.of(queries, pages, relevance, list("abccdefgh")), answers, list("abccdefgh")


def slow_loss(probes, number, data, answers, looks, hard, options, *, masks=True):
    z_query, z_page = (slow_z(probes, number, side, s) for s, side in enumerate((data.queries, data.pages)))
    pairs = [(query, page) for query, own in enumerate(answers) for page in sorted(own)]
    batch = {page for _, page in pairs} | {page for row in hard for page in row if page >= 0}
    losses = []
    for query, page in pairs:
        against = batch if options.in_batch else {other for other in hard[query] if other >= 0}
        same = {looks[answer] for answer in answers[query]}
        against = {other for other in against if not masks or looks[other] not in same} - {page}
        scores = {other: z_query[query] @ z_page[other] / options.temperature for other in (page, *against)}
        losses.append(math.log(sum(math.exp(score) for score in scores.values())) - scores[page])
    return np.mean(losses)


@pytest.mark.parametrize("sides", ["shared", "pages", "per_side"])
@pytest.mark.parametrize(
    ("in_batch", "n_hard"), [(True, 0), (True, 3), (False, 3)], ids=["batch", "batch and hard", "hard"]
)
@pytest.mark.parametrize("unit_output", [True, False])
def test_loss_by_a_slow_loop(few, sides, in_batch, n_hard, unit_output, monkeypatch):
    monkeypatch.setattr(module, "LEAST_STEPS", 1)  # one step an epoch, so that its loss is that of the start
    data, answers, looks = few
    options = GateProbeOptions(
        sides=sides, in_batch=in_batch, hard_negatives=n_hard, unit_output=unit_output, temperature=0.3, epochs=1
    )
    start, trained = fit(data, replace(options, epochs=0)), fit(data, options)
    hard = mine_hard_negatives(data, n_hard, options.guard)
    assert n_hard == 0 or 0 < (hard >= 0).sum() < hard.size or options.guard == 1
    for number in range(3):
        expected = slow_loss(start, number, data, answers, looks, hard, options)
        assert trained.loss[0, number] == pytest.approx(expected, rel=1e-5)
        unmasked = slow_loss(start, number, data, answers, looks, hard, options, masks=False)
        assert not in_batch or unmasked > expected + 1e-3  # or nothing would have been masked
    assert trained.n_hard == pytest.approx((hard >= 0).sum(axis=1).mean())


def test_training_lowers_the_loss_and_finds_the_neurons_that_carry_the_answer(rng, one_thread, last_kept):
    """Neurons 0 to 3 of layer 0 carry the answer, 4 to 11 are noise."""
    meaning = rng.normal(size=(200, 12))
    sides = []
    for _ in range(2):
        states = rng.normal(size=(200, 2, 12))
        states[:, 0, :4] = meaning[:, :4] + 0.3 * states[:, 0, :4]
        states[:, 1] = meaning + states[:, 1]
        sides.append(states.astype(np.float32))
    data = retrieval_data(*sides)
    probes = fit(data, GateProbeOptions(epochs=20, batch_size=50), (0, 0), ("base", NORM))
    assert (probes.loss[-1] < 0.8 * probes.loss[0]).all()
    for number in range(2):
        salience = probes.salience(number)
        assert salience[:4].min() > salience[4:].max(), number


# --- L1 and the cap


@pytest.mark.parametrize("number", range(3))
def test_a_larger_l1_makes_gates_smaller(small, last_kept, number):
    """With gates that learn fast enough; with the prototype's rate they hardly leave 1."""
    sizes, few = [], []
    for l1 in (0.0, 0.3, 3.0, 30.0):
        probes = fit(small, replace(QUICK, l1=l1, epochs=12, gate_learning_rate=3e-2))
        sizes.append(probes.salience(number).mean())
        few.append((probes.salience(number) < 0.1).sum())
    assert (np.diff(sizes) < 0).all() and few == sorted(few) and few[-1] > few[0]
    slow = fit(small, replace(QUICK, l1=30.0, epochs=12, gate_learning_rate=1e-4))
    assert slow.salience(number).mean() > 0.99  # the negative control: twelve epochs are too few for this rate


def test_the_temperature_is_learned_and_never_below_its_cap(small, last_kept):
    even = retrieval_data(small.pages, small.pages)  # every query is its page: sharper is always better
    probes = fit(even, replace(QUICK, temperature=0.012, learning_rate=0.5))
    np.testing.assert_allclose(probes.temperature[:2], 0.01, rtol=1e-5)
    assert probes.temperature.min() > 0.01 - 1e-6
    assert (fit(even, replace(QUICK, temperature=0.5)).temperature < 0.5).all()


# --- sides


def test_sides_share_a_probe_or_have_their_own(small, last_kept):
    shared, pages, own = (fit(small, replace(QUICK, sides=sides)) for sides in ("shared", "pages", "per_side"))
    assert shared.gates.shape == pages.gates.shape == (3, 1, 6) and own.gates.shape == (3, 2, 6)
    assert np.abs(own.gates[:, 0] - own.gates[:, 1]).max() > 0.01
    np.testing.assert_array_equal(own.salience(0), np.abs(own.gates[0]).max(axis=0))
    np.testing.assert_array_equal(shared.salience(0), np.abs(shared.gates[0, 0]))


@pytest.mark.parametrize("sides", ["shared", "pages", "per_side"])
def test_with_pages_alone_only_the_final_vector_of_a_query_is_read(small, sides):
    poisoned = replace(small, queries=small.queries.copy())
    poisoned.queries[:, :-1] = np.nan
    options = replace(QUICK, sides=sides)
    if sides == "pages":
        assert arrays_of(fit(poisoned, options)) == arrays_of(fit(small, options))
    else:  # the negative control
        with pytest.raises(ProbeError, match="the loss of MINER's base probe of layer 0 is nan in epoch 1"):
            fit(poisoned, options, validation=small)


def test_each_probe_reads_its_own_layer_and_the_final_one(small):
    layers, kinds = (0, 0), ("base", NORM)
    poisoned = replace(small, queries=small.queries.copy(), pages=small.pages.copy())
    for side in (poisoned.queries, poisoned.pages):
        side[:, 1] = np.nan
    assert arrays_of(fit(poisoned, QUICK, layers, kinds)) == arrays_of(fit(small, QUICK, layers, kinds))


def test_probes_do_not_depend_on_their_company(small):
    among = fit(small)
    for number, (layer, kind) in enumerate(zip(LAYERS, KINDS, strict=True)):
        alone = fit(small, QUICK, (layer,), (kind,))
        assert among.number_of(layer, kind) == number
        np.testing.assert_allclose(alone.gates[0], among.gates[number], atol=1e-6)
        assert (alone.maps[0] is None) == (kind == "base")
        if kind != "base":
            np.testing.assert_allclose(alone.maps[0], among.maps[number], atol=1e-6)


def test_validation_decides_the_epoch_and_nothing_else(small, rng):
    other = replace(small, queries=rng.normal(size=small.queries.shape).astype(np.float32))
    one, two = fit(small), fit(small, validation=other)
    assert one.loss.tobytes() == two.loss.tobytes() and one.temperature.tobytes() == two.temperature.tobytes()
    assert one.curve.tobytes() != two.curve.tobytes()


# --- the schedule of the prototype


def test_the_prototypes_schedule_is_what_it_published():
    followed = GateProbeOptions(schedule="prototype").settled()
    assert asdict(followed) == asdict(GateProbeOptions()) | {
        "sides": "pages",
        "unit_output": False,
        "in_batch": False,
        "l1": 1e-4,
        "gate_learning_rate": 1e-3,
        "guard": 1.0,
        "seed": 42,
    }
    published = {"learning_rate": 1e-3, "batch_size": 256, "epochs": 10, "hard_negatives": 16, "temperature": 0.07}
    assert published.items() <= asdict(followed).items() and followed.unit_input and not followed.unit_output
    own = GateProbeOptions(l1=0.5)
    assert own.settled() is own


@pytest.mark.parametrize("given", [{"l1": 0.5}, {"seed": 1}, {"sides": "per_side", "epochs": 3}])
def test_the_prototypes_schedule_refuses_other_options(given):
    message = f"schedule prototype sets all other options of these probes; leave {', '.join(given)} out"
    with pytest.raises(ValueError, match=message):
        GateProbeOptions(schedule="prototype", **given)


def test_the_prototypes_schedule_is_followed(small):
    named = fit(small, GateProbeOptions(schedule="prototype"))
    own = {"sides": "pages", "unit_output": False, "in_batch": False, "guard": 1.0}
    said = GateProbeOptions(**own, l1=1e-4, gate_learning_rate=1e-3, seed=42)
    assert arrays_of(named) == arrays_of(fit(small, said)) != arrays_of(fit(small, replace(said, seed=0)))


# --- stops and starts


class Stop(Exception):
    pass


def stopped(small, state, monkeypatch, after, options=QUICK):
    """Fit until some epochs are written."""
    written, keep = [], module.keep_state

    def stopping(*args):
        keep(*args)
        written.append(1)
        if len(written) == after:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(module, "keep_state", stopping)
        fit(small, options, state=state)


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("sides", ["shared", "per_side"])
def test_a_fit_that_was_stopped_ends_with_the_same_bytes(small, tmp_path, monkeypatch, after, sides):
    options, state = replace(QUICK, sides=sides), tmp_path / "probes.safetensors"
    stopped(small, state, monkeypatch, after, options)
    epochs, keep = [], module.keep_state
    monkeypatch.setattr(module, "keep_state", lambda *args: (epochs.append(1), keep(*args)))
    assert arrays_of(fit(small, options, state=state)) == arrays_of(fit(small, options))
    assert len(epochs) == 3 - after  # the others were not done again


def test_the_state_of_another_fit_is_put_aside(small, tmp_path, monkeypatch, caplog):
    state = tmp_path / "probes.safetensors"
    stopped(small, state, monkeypatch, 2)
    dealt = small.shuffled(np.random.default_rng(2))
    moved = replace(small, pages=np.roll(small.pages, 1, axis=2))
    others = [
        (small, replace(QUICK, l1=0.5), LAYERS, KINDS),
        (small, QUICK, (0, 1, 0), KINDS),
        (small, QUICK, LAYERS, ("base", NORM, NORM)),
        (dealt, QUICK, LAYERS, KINDS),
        (moved, QUICK, LAYERS, KINDS),
    ]
    before = state.read_bytes()
    for number, (data, options, layers, kinds) in enumerate(others, 1):
        state.write_bytes(before)
        assert arrays_of(fit(data, options, layers, kinds, state=state)) == arrays_of(fit(data, options, layers, kinds))
        aside = tmp_path / f"probes-aside-{number}.safetensors"
        assert aside.read_bytes() == before
    assert caplog.text.count("is the state of another training; it is put aside") == len(others)


def test_a_damaged_state_is_put_aside(small, tmp_path, monkeypatch, caplog):
    state = tmp_path / "probes.safetensors"
    stopped(small, state, monkeypatch, 1)
    state.write_bytes(state.read_bytes()[:-1] + b"\x01")
    assert arrays_of(fit(small, state=state)) == arrays_of(fit(small))
    assert "is damaged" in caplog.text


# --- what is refused


def test_bad_input_is_named(small, rng):
    with pytest.raises(ProbeError, match="40 hard negatives a query need more than 40 training pages; there are 40"):
        fit(small, replace(QUICK, hard_negatives=40))
    for layers, kinds in (((0, 3), ("base", "base")), ((), ()), ((0, 1), ("base",))):
        with pytest.raises(ProbeError, match=r"layers must be some of 0 … 2, with a kind each; got \["):
            fit(small, QUICK, layers, kinds)
    one = retrieval_data(small.queries[:1], small.pages[:1])
    with pytest.raises(ProbeError, match="at least 2 training pairs are needed, one has no negatives; got 1"):
        fit(one, replace(QUICK, hard_negatives=0))
    with pytest.raises(ProbeError, match="MINER's probes need a backbone whose queries and pages pass the same layers"):
        fit(replace(small, fixed="query"))
    with pytest.raises(ProbeError, match="no base probe of layer 2 was fitted"):
        fit(small).number_of(2, "base")


def test_a_loss_that_is_not_finite_is_named(small):
    pages = small.pages.copy()
    pages[:, 1] = np.nan
    with pytest.raises(
        ProbeError, match="the loss of MINER's base probe of layer 1 is nan in epoch 1; lower the learn"
    ):
        fit(replace(small, pages=pages), validation=small)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0; got 0.0"),
        ({"temperature": 0.001}, "temperature must be at least 0.01, its cap; got 0.001"),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0; got inf"),
        ({"gate_learning_rate": -1.0}, "gate_learning_rate must be above 0; got -1.0"),
        ({"l1": -0.1}, "l1 must be at least 0; got -0.1"),
        ({"guard": 0.0}, "guard must be above 0 and at most 1; got 0.0"),
        ({"guard": 1.1}, "guard must be above 0 and at most 1; got 1.1"),
        ({"hard_negatives": -1}, "hard_negatives must be at least 0; got -1"),
        ({"batch_size": 1}, "batch_size must be at least 2; got 1"),
        ({"epochs": -1}, "epochs must be at least 0; got -1"),
        ({"in_batch": False, "hard_negatives": 0}, "hard_negatives must be at least 1 without in_batch"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        GateProbeOptions(**options)
