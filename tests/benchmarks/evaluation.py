"""What evaluating costs: ``python -m tests.benchmarks.evaluation``.

4,000 queries of 200 documents over 6,000 pages, one to five graded pages a query. Every metric of an evaluation from
the score matrix, and the interval of each, over documents and over single queries; the target is 5 s for either.

Then the same metrics from ranked lists of 100 pages a query, against pytrec_eval-terrier, ir_measures, the evaluator of
sentence-transformers (which knows no grades) and mteb's scoring of a retrieval task (which takes more metrics), each
where it is installed; the lists are made before, in the form that each takes. Rounds are interleaved, on one thread;
time is the processor's, of the median round. How far the mean of recall@10 and MRR@10 is from ours is said, too: no
scores tie here.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from miner_diag.retrieval import METRICS, Hits, Relevance, metrics_of_run, metrics_of_scores
from miner_diag.stats import bootstrap_crossed_tables

QUERIES, PAGES, DOCUMENTS, DEPTH = 4000, 6000, 200, 100
TARGET_SECONDS = 5.0
KS = (1, 5, 10)
RIVALS = {
    "pytrec_eval-terrier": "pytrec_eval",
    "ir-measures": "ir_measures",
    "sentence-transformers": "sentence_transformers",
    "mteb": "mteb",
}
"""Distribution -> what is imported."""


def draw():
    """Scores [Q, P] without ties, graded pages a little above the others; grades; the documents of the queries."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(QUERIES, PAGES)).astype(np.float32)
    grades = []
    for row in range(QUERIES):
        pages = rng.choice(PAGES, int(rng.integers(1, 6)), replace=False)
        grades.append({int(page): int(rng.integers(1, 3)) for page in pages})
        scores[row, pages] += 2.5
    return scores.argsort(axis=1).argsort(axis=1).astype(np.float32), grades, rng.integers(0, DOCUMENTS, QUERIES)


def evaluate(scores, relevance, clusters):
    """Every metric with its interval, as the evaluation has them."""
    values = [metric.values[None] for metric in metrics_of_scores(scores, relevance).values()]
    return bootstrap_crossed_tables(values, np.random.default_rng(0), clusters=clusters)


def ready(way, run, qrels):
    """Return the call of one way; it gives the mean of recall@10 and of MRR@10."""
    if way == "ours":

        def ours():
            found = metrics_of_run(qrels, run)
            return found["recall_at_10"].mean, found["mrr_at_10"].mean

        return ours
    if way == "pytrec_eval-terrier":
        import pytrec_eval

        def trec():
            asked = {"ndcg_cut.1,5,10", "recall.1,5,10", "recip_rank", "map"}
            found = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(run).values()
            ranks = [each["recip_rank"] for each in found]
            return np.mean([each["recall_10"] for each in found]), np.mean(
                [rank if rank >= 0.1 else 0 for rank in ranks]
            )

        return trec
    if way == "ir-measures":
        import ir_measures
        from ir_measures import AP, RR, R, nDCG

        measures = [nDCG @ 1, nDCG @ 5, nDCG @ 10, R @ 1, R @ 5, R @ 10, RR @ 10, AP]

        def measured():
            found = ir_measures.calc_aggregate(measures, qrels, run)
            return found[R @ 10], found[RR @ 10]

        return measured
    if way == "sentence-transformers":
        from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

        evaluator = InformationRetrievalEvaluator(
            dict.fromkeys(qrels, ""),
            {f"p{page}": "" for page in range(PAGES)},
            {query: set(pages) for query, pages in qrels.items()},
            **{f"{name}_at_k": list(KS) for name in ("ndcg", "accuracy", "precision_recall")},
            mrr_at_k=[10],
            map_at_k=[DEPTH],
        )
        lists = [[{"corpus_id": page, "score": score} for page, score in run[query].items()] for query in qrels]

        def evaluated():
            found = evaluator.compute_metrics(lists)
            return found["recall@k"][10], found["mrr@k"][10]

        return evaluated
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores

    def of_task():
        found = calculate_retrieval_scores(run, qrels, list(KS))
        return found.recall["Recall@10"], found.mrr["MRR@10"]

    return of_task


def timed(calls, rounds):
    """Return the processor seconds of each call in each round, after one that is not counted."""
    seconds = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name in calls if number % 2 else reversed(calls):
            start = time.process_time()
            calls[name]()
            if number:
                seconds[name].append(time.process_time() - start)
    return seconds


def measure(rounds):
    """Return a row per way, and what is not installed."""
    scores, grades, clusters = draw()
    relevance = Relevance.of(grades, n_pages=PAGES)
    whole = {
        "score matrix, intervals over documents": lambda: evaluate(scores, relevance, clusters),
        "score matrix, intervals over queries": lambda: evaluate(scores, relevance, None),
        "score matrix, no intervals": lambda: metrics_of_scores(scores, relevance),
    }
    sizes = {"queries": QUERIES, "pages": PAGES, "metrics": len(METRICS)}
    rows = [
        {"case": case, "way": "ours", **sizes, "seconds": round(statistics.median(each), 4)}
        for case, each in timed(whole, rounds).items()
    ]
    hits = Hits.of_scores(scores, DEPTH)
    query_ids = [f"q{row}" for row in range(QUERIES)]
    run = hits.to_run(query_ids, [f"p{page}" for page in range(PAGES)])
    qrels = {f"q{row}": {f"p{page}": grade for page, grade in graded.items()} for row, graded in enumerate(grades)}
    missing = [way for way, module in RIVALS.items() if importlib.util.find_spec(module) is None]
    ways = ["ours", *(way for way in RIVALS if way not in missing)]
    calls = {way: ready(way, run, qrels) for way in ways}
    found = {way: np.array(call()) for way, call in calls.items()}
    seconds = timed(calls, rounds)
    for way in ways:
        rows.append(
            {
                "case": f"lists of {DEPTH} pages",
                "way": way,
                **sizes,
                "version": "" if way == "ours" else metadata.version(way),
                "seconds": round(statistics.median(seconds[way]), 4),
                "ours_to_this": round(statistics.median(np.divide(seconds["ours"], seconds[way])), 3),
                "largest_difference_to_ours": f"{np.abs(found[way] - found['ours']).max():.1e}",
            }
        )
    return rows, missing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("figures/evaluation_speed.csv"))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows, missing = measure(options.rounds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    for way in missing:
        print(f"skipped: {way} is not installed")
    slowest = max(row["seconds"] for row in rows if "intervals over" in row["case"])
    held = slowest <= TARGET_SECONDS
    print(f"all metrics and intervals in {slowest:.2f} s, at most {TARGET_SECONDS:g} s: {'ok' if held else 'MISSED'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
