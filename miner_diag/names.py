"""Plain names: what figures and printed tables call systems and kinds of probe; files keep the code names."""

from __future__ import annotations

import re

SYSTEMS = {
    "backbone": "backbone",
    "whitened": "backbone, whitened",
    "mean_last_2": "mean of the last 2 layers",
    "mean_last_3": "mean of the last 3 layers",
    "concat_pca": "all layers joined, then PCA",
    "scalar_mix": "softmax mix of all layers",
    "weighted_layer_pooling": "weighted mean of all layers",
    "best_single_layer": "best single probe",
    "head": "best head on the final layer",
    "final_layer_vector": "head: vector and bias",
    "final_layer_linear": "head: linear",
    "final_layer_head": "head: the fusion's form",
    "final_layer_mlp": "head: MLP",
    "miner": "MINER",
    "miner_our_layers": "MINER, our layers",
    "miner_our_probes": "MINER, our projections",
    "miner_our_mask": "MINER, our mask",
    "miner_scalar_weights": "MINER, scalar weights",
    "miner_trained_maps": "MINER, trained maps",
    "miner_whitened": "MINER, whitened final layer",
    "miner_random_negatives": "MINER, random negatives",
    "trained_maps": "ours",
    "base_only": "ours, base probes only",
    "projection_only": "ours, projections only",
    "no_bias": "ours, no bias",
    "no_mask": "ours, no mask",
    "fixed_mask": "ours, fixed mask",
    "frozen_probes": "ours, frozen probes",
    "identity_start": "ours, not whitened",
    "all_layers": "ours, all layers",
    "fusion_mrl": "ours, for short vectors",
    "query_specific": "ours, weights by query",
    "random_mask": "ours, random mask",
    "shuffled_layers": "ours, shuffled inner layers",
    "oracle_layer": "best layer of each query",
    "late": "late interaction",
    "text layer": "BM25, whole text",
}
"""Code name of a system -> its plain name; "ours" is the form `trained_maps`."""

HEADS = ("final_layer_vector", "final_layer_linear", "final_layer_head", "final_layer_mlp")
"""The systems that are heads on the final layer alone."""

KINDS = {"base": "base probe", "normalized_projection": "normalized projection"}
"""Code name of a kind of probe -> its plain name."""

_READ = "text read by "
_OF_RUN = re.compile(r"(?P<name>.+?) (?P<run>\(.+\))")


def plain_system(name: str) -> str:
    """Return what figures call a system; one that is not known keeps its name, without underscores.

    Examples
    --------
    >>> plain_system("miner_our_mask"), plain_system("trained_maps (run-2)"), plain_system("my_system")
    ('MINER, our mask', 'ours (run-2)', 'my system')
    """
    if name.startswith(_READ):
        return f"BM25, text {name.removeprefix(_READ)} read"
    of_run = _OF_RUN.fullmatch(name)  # of several runs of one retriever each names its own
    if of_run and of_run["name"] in SYSTEMS:
        return f"{SYSTEMS[of_run['name']]} {of_run['run']}"
    return SYSTEMS.get(name, name.replace("_", " "))
