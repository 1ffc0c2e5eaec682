"""CKA, alignment ratio and their uncertainty: numbers from arrays and tensors.

`linear_cka` for two views, `cka_matrix` for many layers, `StreamingCKA` for batches, `compare` for two views with
everything that can be said of them.
"""

from miner_diag.cka.alignment import Comparison, OutlierCheck, alignment_ratio, compare
from miner_diag.cka.cka_matrix_result import CKAMatrix
from miner_diag.cka.errors import UndefinedCKAError
from miner_diag.cka.geometry import anisotropy, effective_rank, mean_cosine, paired_cosines
from miner_diag.cka.hsic import hsic_from_kernels
from miner_diag.cka.matrix import cka_matrix, linear_cka
from miner_diag.cka.permutation import PermutationNull
from miner_diag.cka.streaming import StreamingCKA

__all__ = [
    "CKAMatrix",
    "Comparison",
    "OutlierCheck",
    "PermutationNull",
    "StreamingCKA",
    "UndefinedCKAError",
    "alignment_ratio",
    "anisotropy",
    "cka_matrix",
    "compare",
    "effective_rank",
    "hsic_from_kernels",
    "linear_cka",
    "mean_cosine",
    "paired_cosines",
]
