"""Faults that were put into the numerical core by hand, each with the tests that must notice it.

``python -m tests.mutations`` puts them one by one into a copy of the package, runs those tests and prints which faults
they caught; see `__main__`. The default test run only checks that the list still fits the package (`test_list.py`).
"""

from tests.mutations.mutation import Mutation
from tests.mutations.of_cka import OF_CKA
from tests.mutations.of_fusion import OF_FUSION
from tests.mutations.of_input import OF_INPUT
from tests.mutations.of_miner import OF_MINER
from tests.mutations.of_probes import OF_PROBES
from tests.mutations.of_retrieval import OF_RETRIEVAL
from tests.mutations.of_stats import OF_STATS

MUTATIONS: tuple[Mutation, ...] = (*OF_CKA, *OF_RETRIEVAL, *OF_STATS, *OF_PROBES, *OF_FUSION, *OF_MINER, *OF_INPUT)

__all__ = ["MUTATIONS", "Mutation"]
