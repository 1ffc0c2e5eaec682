"""Faults in the checks of input: what passes them gives a number that looks right."""

from tests.mutations.mutation import Mutation

ARRAYS, STATES = "test_arrays.py", "fusion/test_bad_states.py"

OF_INPUT = (
    Mutation(
        "mask-lost",
        "arrays.py",
        "    if n_masked:\n",
        "    if False:\n",
        (ARRAYS,),
        "What lies under a mask is read as a number.",
    ),
    Mutation(
        "complex-passes",
        "arrays.py",
        "if array.dtype.kind not in kinds and array.size:",
        'if array.dtype.kind not in kinds + "c" and array.size:',
        (ARRAYS,),
        "Imaginary parts are dropped.",
    ),
    Mutation(
        "labels-by-position",
        "arrays.py",
        "if len(first) != len(labels) or first.equals(labels):",
        "if True:",
        (ARRAYS,),
        "Tables in another order are paired by position.",
    ),
    Mutation(
        "missing-labels-are-a-group",
        "arrays.py",
        "    if any(missing):\n",
        "    if False:\n",
        (ARRAYS,),
        "Items without a document are one document.",
    ),
    Mutation(
        "page-numbers-cut-off",
        "arrays.py",
        "    if not whole.all():\n",
        "    if False:\n",
        (ARRAYS,),
        "Page 1.9 is page 1.",
    ),
    Mutation(
        "underflow-ties",
        "arrays.py",
        " | ((exact != 0) & (rounded == 0))",
        "",
        (ARRAYS,),
        "Scores around 1e-50 tie.",
    ),
    Mutation(
        "any-estimator",
        "cka/hsic.py",
        "if estimator not in get_args(Estimator):",
        "if False:",
        (ARRAYS,),
        "An estimator called unbiased is the biased one.",
    ),
    Mutation(
        "any-matrix-is-a-kernel",
        "cka/hsic.py",
        "if apart.size and apart.max() > slack",
        "if apart.size and apart.max() > np.inf * slack",
        (ARRAYS,),
        "A product of two sides has an HSIC.",
    ),
    Mutation(
        "any-side",
        "fusion/system.py",
        '    if side not in ("query", "page"):\n',
        "    if False:\n",
        (STATES,),
        "A side called Query is read as page.",
    ),
    Mutation(
        "states-without-direction",
        "fusion/system.py",
        "    if not usable.all():\n",
        "    if False:\n",
        (STATES,),
        "A zero final layer gives the bias at length one.",
    ),
    Mutation(
        "half-a-mask",
        "fusion/model.py",
        "if array.ndim != 2 or not (kept | (array == 0)).all():",
        "if array.ndim != 2:",
        (STATES,),
        "A mask of 0.5 drops a neuron.",
    ),
)
