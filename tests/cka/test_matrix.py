"""CKA: what must hold, what must not, and two routes that agree with a slow third."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from miner_diag.cka import UndefinedCKAError, cka_matrix, linear_cka
from miner_diag.cka.gram import WORKSPACE, _tile_size, gram_sums
from miner_diag.cka.sides import prepare


def planted(rng, n, widths, noise=1.0, signal=6):
    """Layers that see the same low-dimensional signal, each in its own coordinates, with noise."""
    hidden = rng.normal(size=(n, signal))
    return [hidden @ rng.normal(size=(signal, d)) + noise * rng.normal(size=(n, d)) for d in widths]


def slow_kernel(x, kernel="linear"):
    x = np.asarray(x, np.float64) if np.asarray(x).dtype != np.longdouble else x
    x = x - x.mean(axis=0)
    if kernel == "linear":
        return x @ x.T
    distance = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    sigma = np.median(distance[np.triu_indices(len(x), 1)])
    return np.exp(-(distance**2) / (2 * sigma**2))


def slow_hsic(k, l, estimator="debiased"):  # noqa: E741
    """From the definitions (Song et al. 2012 eq. 5; Kornblith et al. 2019 eq. 2), with nothing of the package in it."""
    n = len(k)
    if estimator == "biased":
        h = np.eye(n) - np.ones((n, n)) / n
        return np.trace(k @ h @ l @ h) / (n - 1) ** 2
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    first, second = np.trace(k @ l), (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (first + second - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def slow_cka(x, y, estimator="debiased", kernel="linear"):
    k, l = slow_kernel(x, kernel), slow_kernel(y, kernel)  # noqa: E741
    return slow_hsic(k, l, estimator) / np.sqrt(slow_hsic(k, k, estimator) * slow_hsic(l, l, estimator))


def slow_matrix(xs, ys, estimator="debiased", kernel="linear"):
    return np.array([[slow_cka(x, y, estimator, kernel) for y in ys] for x in xs])


def values(layers, other=None, **options):
    return cka_matrix(layers, other, intervals=False, null=False, **options).values


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
class TestInvariances:
    def test_rotation_shift_and_scale_change_nothing(self, rng, estimator):
        x, y = planted(rng, 64, (8, 5))
        moved = 2.5 * x @ ortho_group.rvs(8, random_state=0) + 7.0
        whole = linear_cka(x, y, estimator=estimator)
        assert linear_cka(moved, y, estimator=estimator) == pytest.approx(whole, rel=1e-12)

    def test_stretching_one_dimension_does(self, rng, estimator):
        x, y = planted(rng, 64, (8, 5))
        stretched = x * np.r_[10.0, np.ones(7)]
        whole = linear_cka(x, y, estimator=estimator)
        assert linear_cka(stretched, y, estimator=estimator) != pytest.approx(whole, rel=1e-3)

    def test_order_of_items_changes_nothing_but_breaking_the_pairs_does(self, rng, estimator):
        x, y = planted(rng, 64, (8, 5))
        order = rng.permutation(64)
        whole = linear_cka(x, y, estimator=estimator)
        assert linear_cka(x[order], y[order], estimator=estimator) == pytest.approx(whole, rel=1e-12)
        assert linear_cka(x[order], y, estimator=estimator) < 0.5 * whole

    def test_diagonal_is_one_and_matrix_is_symmetric(self, rng, estimator):
        result = values(planted(rng, 50, (8, 5, 30)), estimator=estimator)
        np.testing.assert_allclose(np.diag(result), 1, rtol=1e-12)
        np.testing.assert_allclose(result, result.T, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
@pytest.mark.parametrize("route", ["gram", "features"])
@pytest.mark.parametrize("n", [4, 5, 37, 300])
def test_routes_equal_the_slow_reference(rng, estimator, route, n):
    layers = planted(rng, n, (20, 33, 7))
    for other in (None, layers[1:]):
        truth = slow_matrix(layers, other or layers, estimator)
        for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-5)):
            for extras in (True, False):
                result = cka_matrix(
                    layers, other, estimator=estimator, route=route, dtype=dtype, intervals=extras, null=extras
                )
                np.testing.assert_allclose(result.values, truth, rtol=0, atol=tolerance)
                assert result.route == route
                if n > 30:  # of fewer items the feature sums lose too much in float32, and float64 takes over
                    assert result.dtype == dtype


@pytest.mark.parametrize("estimator", ["debiased", "biased"])
def test_rbf_equals_the_slow_reference_and_ignores_isotropic_scale(rng, estimator):
    layers = planted(rng, 45, (6, 9))
    truth = slow_matrix(layers, layers, estimator, "rbf")
    np.testing.assert_allclose(values(layers, estimator=estimator, kernel="rbf"), truth, rtol=0, atol=1e-9)
    scaled = [3e5 * layers[0], layers[1]]
    np.testing.assert_allclose(values(scaled, estimator=estimator, kernel="rbf"), truth, rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(4, 40),
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    seed=st.integers(0, 2**32 - 1),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    route=st.sampled_from(["gram", "features"]),
    estimator=st.sampled_from(["debiased", "biased"]),
)
def test_any_shape_offset_and_scale(n, widths, seed, offset, scale, route, estimator):
    rng = np.random.default_rng(seed)
    layers = planted(rng, n, widths)
    truth = slow_matrix(layers, layers, estimator)
    moved = [(layer + offset * (np.arange(layer.shape[1]) == 0)) * scale for layer in layers]
    # 1e-9 holds unless the self-HSIC nearly vanishes, as it can for n = 4: the reference itself is then inexact.
    spread = min(
        slow_hsic(slow_kernel(x), slow_kernel(x), estimator) * n * n / np.trace(slow_kernel(x)) ** 2 for x in layers
    )
    np.testing.assert_allclose(
        values(moved, route=route, estimator=estimator), truth, rtol=0, atol=1e-9 * max(1, 1e-2 / spread)
    )


@pytest.mark.parametrize("workspace", [1, 2**18, 2**22])
@pytest.mark.parametrize("rows", [True, False])
def test_tiles_of_any_size_give_the_same_sums(rng, workspace, rows):
    layers = planted(rng, 333, (20, 33, 7))
    for other in (None, layers[:1]):
        options = {"names": None, "other_names": None, "kernel": "linear", "bandwidth": 1.0}
        sides = prepare(layers, other, **options, dtype=torch.float64, device=None)
        whole = gram_sums(sides, "debiased", rows=True)
        tiled = gram_sums(sides, "debiased", rows=rows, workspace=workspace)
        np.testing.assert_allclose(tiled.cross, whole.cross, rtol=1e-11)
        np.testing.assert_allclose(tiled.self_x, whole.self_x, rtol=1e-11)
        if rows:
            np.testing.assert_allclose(tiled.cross_rows, whole.cross_rows, rtol=0, atol=1e-11 * whole.cross.max())


def test_tiles_of_a_deep_model_stay_in_the_workspace_whatever_n():
    for itemsize in (4, 8):
        sizes = {_tile_size(n, [1536] * 29, itemsize, WORKSPACE) for n in (2000, 4000, 8000, 10**6)}
        ((rows, columns),) = sizes  # the same for every n
        assert columns % rows == 0
        assert itemsize * 29 * (columns * 1538 + 2 * rows * columns) < WORKSPACE


def test_importing_the_numbers_imports_no_model_library():
    code = "import sys, miner_diag.cka; print([m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


class TestInputs:
    def test_array_of_layers_list_and_tensor_are_the_same(self, rng):
        x = np.stack(planted(rng, 40, (6, 6, 6)), axis=1)
        truth = slow_matrix([x[:, i] for i in range(3)], [x[:, i] for i in range(3)])
        for given_as in (x, torch.from_numpy(x), [x[:, i] for i in range(3)], tuple(torch.from_numpy(x).unbind(1))):
            np.testing.assert_allclose(values(given_as), truth, rtol=0, atol=1e-12)

    def test_layer_against_final_is_the_last_column(self, rng):
        x = np.stack(planted(rng, 40, (6, 6, 6)), axis=1)
        np.testing.assert_allclose(values(x, x[:, -1])[:, 0], values(x)[:, -1], rtol=1e-12)

    def test_layer_against_final_costs_no_pairs_but_its_own(self, rng):
        x = rng.normal(size=(50, 12, 30))
        against_final = cka_matrix(x, x[:, -1], intervals=False, null=False).operations
        all_pairs = cka_matrix(x, intervals=False, null=False).operations
        assert against_final["features"] == 50 * 30 * 30 * (12 + 1 + 12)
        assert all_pairs["features"] == 50 * 30 * 30 * 12 * 13 / 2

    def test_the_cheaper_route_is_taken(self, rng):
        tall = cka_matrix(rng.normal(size=(300, 3, 8)), intervals=False, null=False)
        wide = cka_matrix(rng.normal(size=(30, 3, 200)), intervals=False, null=False)
        assert (tall.route, wide.route) == ("features", "gram")
        for result in (tall, wide):
            assert result.operations[result.route] == min(result.operations.values())

    @pytest.mark.parametrize("change", ["reversed", "strided", "transposed", "read_only", "memory_map"])
    def test_any_memory_layout(self, rng, change, tmp_path):
        x, y = planted(rng, 30, (6, 4))
        truth = slow_cka(x, y)
        if change == "reversed":
            x, y = x[::-1, ::-1], y[::-1]
        elif change == "strided":
            x = np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3]
        elif change == "transposed":
            x = np.ascontiguousarray(x.T).T
        elif change == "read_only":
            x.flags.writeable = False
        else:
            np.save(tmp_path / "x.npy", x)
            x = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert linear_cka(x, y) == pytest.approx(truth, abs=1e-12)

    def test_arguments_are_not_changed(self, rng):
        x, y = planted(rng, 30, (6, 4))
        before = x.copy(), y.copy()
        cka_matrix([x, y], route="gram")
        cka_matrix([x, y], route="features")
        np.testing.assert_array_equal(x, before[0])
        np.testing.assert_array_equal(y, before[1])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_narrow_types_are_as_exact_as_their_rows(self, rng, dtype):
        x, y = (torch.from_numpy(side).to(dtype) for side in planted(rng, 60, (20, 30)))
        truth = slow_cka(x.double().numpy(), y.double().numpy())
        assert linear_cka(x, y) == pytest.approx(truth, abs=1e-9)
        result = cka_matrix([x], [y])
        assert result.dtype == "float32"
        assert result.values[0, 0] == pytest.approx(truth, abs=1e-5)

    def test_integers_are_numbers_too(self, rng):
        x = rng.integers(-5, 5, size=(30, 4))
        assert linear_cka(x, x**2) == pytest.approx(slow_cka(x, x**2), abs=1e-12)

    def test_float32_offset_keeps_its_precision(self, rng):
        x, y = planted(rng, 200, (20, 30))
        x = (x + 1e4).astype(np.float32)
        truth = slow_cka(x, y)
        assert linear_cka(x, y) == pytest.approx(truth, abs=1e-9)
        assert values([x], [y.astype(np.float32)])[0, 0] == pytest.approx(truth, abs=1e-5)

    @pytest.mark.parametrize(
        ("far", "route", "dtype"),
        [(10, "features", "float32"), (1e3, "features", "float64"), (1e5, "gram", "float64")],
    )
    def test_one_far_item_is_met_with_precision(self, rng, far, route, dtype):
        x, y = planted(rng, 200, (3, 4))
        x[17] *= far
        result = cka_matrix([x], [y], route="features", dtype="float32", intervals=False, null=False)
        assert (result.route, result.dtype) == (route, dtype)
        # Song's sums cancel to one part in 10^8 at 1e5, more than float64 allows the reference.
        truth = float(slow_cka(x.astype(np.longdouble), y.astype(np.longdouble)))
        assert result.values[0, 0] == pytest.approx(truth, abs=1e-9 if dtype == "float64" else 1e-5)

    def test_one_item_too_far_is_an_error(self, rng):
        x, y = planted(rng, 200, (3, 4))
        x[17] *= 1e9
        with pytest.raises(
            UndefinedCKAError, match=r"layer 0 \(n=200, d=3\) has a debiased self-HSIC of zero to within"
        ):
            cka_matrix([x], [y])


class TestErrors:
    def test_constant_side_is_named_though_its_mean_is_not_exact(self, rng):
        constant = np.full((1000, 3), 0.1)
        with pytest.raises(UndefinedCKAError, match=r"y is the same for all 1000 items \(d=3\)"):
            linear_cka(rng.normal(size=(1000, 2)), constant)

    @pytest.mark.parametrize("factor", [1.0, 1e30, 1e-30])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_constant_up_to_one_unit_in_the_last_place(self, rng, factor, dtype):
        if dtype == np.float16 and factor != 1.0:
            pytest.skip("float16 has no such numbers")
        constant = np.full((50, 3), 0.1 * factor, dtype)
        constant[::2] = np.nextafter(constant[::2], dtype(np.inf))
        with pytest.raises(UndefinedCKAError, match="same for all 50 items"):
            linear_cka(constant, rng.normal(size=(50, 2)))

    def test_a_tiny_but_real_spread_is_not_constant(self, rng):
        x, y = planted(rng, 60, (4, 5))
        assert linear_cka(1.0 + 1e-6 * x, y) == pytest.approx(slow_cka(x, y), abs=1e-6)

    def test_too_few_items(self, rng):
        with pytest.raises(UndefinedCKAError, match="x has n=3, d=5: CKA needs at least 4 items"):
            linear_cka(rng.normal(size=(3, 5)), rng.normal(size=(3, 5)))

    def test_items_all_equally_far_have_no_debiased_cka(self, rng):
        for side in (np.eye(10), np.eye(10, dtype=np.float32)):
            with pytest.raises(UndefinedCKAError, match=r"layer 0 \(n=10, d=10\) has a debiased self-HSIC of zero"):
                cka_matrix([side], [rng.normal(size=(10, 2)).astype(side.dtype)])

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite_names_layer_item_and_dimension(self, rng, bad):
        layers = planted(rng, 20, (4, 5))
        layers[1][7, 2] = bad
        message = rf"layer 1 \(n=20, d=5\) holds {bad} at item 7, dimension 2 \(1 such"
        with pytest.raises(UndefinedCKAError, match=message):
            cka_matrix(layers)

    def test_rows_that_do_not_match(self, rng):
        x, y = planted(rng, 20, (4, 5))
        with pytest.raises(ValueError, match=r"x has 20 rows, y has 19"):
            linear_cka(x, y[:-1])
        with pytest.raises(ValueError, match=r"row counts \[20, 19\]"):
            cka_matrix([x, y[:-1]])

    def test_options_are_named(self, rng):
        x = rng.normal(size=(10, 2, 3))
        for options, message in (
            ({"estimator": "unbiased"}, "estimator must be one of 'debiased', 'biased', got 'unbiased'"),
            ({"kernel": "cosine"}, "kernel must be one of 'linear', 'rbf', got 'cosine'"),
            ({"route": "fast"}, "route must be one of 'auto', 'gram', 'features', got 'fast'"),
            ({"dtype": "float16"}, "dtype must be 'float32' or 'float64', got 'float16'"),
            ({"kernel": "rbf", "route": "features"}, "exists for the linear kernel only"),
            ({"names": ["a"]}, "layer_embeddings has 2, names has 1"),
            ({"other_names": ["a"]}, "other_names needs other"),
            ({"confidence": 95}, "confidence must lie between 0 and 1, got 95"),
            ({"groups": [1, 2]}, r"each of the 10 items, got shape \(2,\)"),
            ({"groups": [1] * 10}, "at least 2 different groups"),
        ):
            with pytest.raises(ValueError, match=message):
                cka_matrix(x, **options)
        for shape in ((10,), (10, 2, 3, 4), (10, 0)):
            with pytest.raises(ValueError, match="must"):
                cka_matrix(np.zeros(shape))
        with pytest.raises(ValueError, match="x must be an array of real numbers; got dtype complex128"):
            linear_cka(np.zeros((5, 2), complex), np.zeros((5, 2)))

    def test_rbf_of_mostly_equal_items(self, rng):
        x = np.zeros((20, 3))
        x[:3] = rng.normal(size=(3, 3))
        with pytest.raises(UndefinedCKAError, match="more than half of the items coincide"):
            cka_matrix([x], kernel="rbf")


def test_equals_the_published_unbiased_oracle(rng):
    ckatorch = pytest.importorskip("ckatorch")
    x, y = (torch.from_numpy(side) for side in planted(rng, 200, (30, 50)))
    for unbiased in (True, False):
        theirs = float(ckatorch.cka_base(x, y, unbiased=unbiased))
        assert linear_cka(x, y, estimator="debiased" if unbiased else "biased") == pytest.approx(theirs, abs=1e-10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_numbers(rng):
    x = np.stack(planted(rng, 300, (20, 20, 20)), axis=1)
    for kernel, route in (("linear", "gram"), ("linear", "features"), ("rbf", "gram")):
        cpu, cuda = (cka_matrix(x, kernel=kernel, route=route, device=device) for device in ("cpu", "cuda"))
        np.testing.assert_allclose(cuda.values, cpu.values, rtol=0, atol=1e-9)
        np.testing.assert_allclose(cuda.low, cpu.low, rtol=0, atol=1e-7)
