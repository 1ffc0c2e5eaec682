"""mteb's own code over models and tasks of ours: it finds the numbers that we find, and encodes each page once."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from miner_diag.backbones import BackboneError, LoadOptions, UnknownBackboneError, load_backbone
from miner_diag.backbones.known import TASKS_WORDS
from miner_diag.corpus import load_corpus
from miner_diag.corpus.hub_data import load_hub_folder
from miner_diag.embeddings.embedded import EmbeddedCorpus
from miner_diag.embeddings.options import StoreOptions
from miner_diag.embeddings.shards import StoreError
from miner_diag.evaluation import EvaluationError
from miner_diag.evaluation.mteb import load_mteb_model, retrieval_task
from miner_diag.evaluation.systems import final_embeddings
from miner_diag.fusion import encode, load_systems
from miner_diag.probes import RetrievalData
from miner_diag.retrieval import Relevance, score_all
from miner_diag.retrieval.ndcg import ndcg_with_ties
from tests.backbones.tiny import save_dual_encoder, save_qwen
from tests.corpus.parquet_files import save
from tests.corpus.test_hub_data import row
from tests.handbooks import write_handbooks

pytest.importorskip("mteb", reason='needs the extra "mteb"')
import datasets
import mteb
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SearchProtocol

TOLERANCE = 1e-6
V1_WORDS = "Find a screenshot that relevant to the user's question."


def graded(corpus, seed=0):
    """The corpus with more answers: a query's own page counts 2, and a page drawn for it 1."""
    rng = np.random.default_rng(seed)
    pages = [page.page_id for page in corpus.pages]
    qrels = {}
    for query in corpus.queries:
        (gold,) = corpus.qrels[query.query_id]
        other = str(rng.choice([page for page in pages if page != gold]))
        qrels[query.query_id] = {gold: 2, other: 1}
    return replace(corpus, qrels=qrels)


def two_languages(corpus):
    """Two subsets over the same pages: every second query as it is, and the others with their words turned round."""
    turned = [replace(query, text=" ".join(reversed(query.text.split()))) for query in corpus.queries[1::2]]
    return {
        "forwards": corpus.restrict(corpus.pages, corpus.queries[::2]),
        "backwards": corpus.restrict(corpus.pages, tuple(turned)),
    }


def by_mteb(model, task, **options):
    """Run mteb; return {subset: {query id: its own values, unrounded}} and its result."""
    unrounded = {}

    def keep(scores, qrels, results, hf_split, hf_subset):
        unrounded[hf_subset] = scores
        return {}

    task.task_specific_scores = keep
    result = mteb.evaluate(model, task, **{"cache": None, "show_progress_bar": False, **options})
    return unrounded, result.task_results[0]


def ours_of_backbone(backbone, corpus, folder):
    """Embed a corpus through the store; return what `miner_diag.evaluation` takes for the retriever's own row."""
    embedded = EmbeddedCorpus(corpus, backbone, StoreOptions(folder), progress=False).take(corpus)
    relevance = Relevance.from_qrels(corpus.qrels, embedded.stores.queries.ids, embedded.stores.pages.ids)
    scores = score_all(*final_embeddings(embedded))
    return {k: ndcg_with_ties(scores, relevance, k) for k in (5, 10)}


def ours_of_system(backbone, module, corpus, folder):
    """Embed a corpus through the store; return nDCG of a saved system as `score_run` takes it."""
    stores = EmbeddedCorpus(corpus, backbone, StoreOptions(folder), progress=False).take(corpus).stores
    relevance = Relevance.from_qrels(corpus.qrels, stores.queries.ids, stores.pages.ids)
    data = RetrievalData.of(stores.queries, stores.pages, relevance, [page.page_hash for page in corpus.pages])
    scores = score_all(*encode(module, data))
    return {k: ndcg_with_ties(scores, relevance, k) for k in (5, 10)}


def assert_same(unrounded, result, ours, main=5):
    """Compare every query's nDCG, and mteb's means, which it rounds to five digits; no query here has a tie."""
    entries = {entry["hf_subset"]: entry for entry in result.scores["test"]}
    assert set(unrounded) == set(ours) <= set(entries)
    for subset, by_k in ours.items():
        for k, ndcg in by_k.items():
            assert not ndcg.order_matters.any()
            theirs = [unrounded[subset][query_id][f"ndcg_cut_{k}"] for query_id in ndcg.query_ids]
            assert len(theirs) == len(unrounded[subset])
            np.testing.assert_allclose(theirs, ndcg.values, rtol=0, atol=TOLERANCE)
            assert abs(np.mean(theirs) - ndcg.mean) < TOLERANCE
            assert entries[subset][f"ndcg_at_{k}"] == round(float(np.mean(theirs)), 5)
        assert entries[subset]["main_score"] == entries[subset][f"ndcg_at_{main}"]
        assert 0.02 < entries[subset]["main_score"] < 0.98, "a number that could be anything else"


def counting(model, monkeypatch):
    """Return a list that grows by the id of every page that passes through the retriever."""
    passed, prepare = [], model.backbone.prepare

    def counted(items, side):
        passed.extend(item.page_id for item in items if side == "page")
        return prepare(items, side)

    monkeypatch.setattr(model.backbone, "prepare", counted)
    return passed


@pytest.fixture(scope="module")
def handbooks(fitted):
    """Test documents of the fusion run, graded, in two subsets."""
    return two_languages(graded(load_corpus(fitted.documents, queries="verbatim").split("test")))


@pytest.fixture
def small_load(fitted):
    return LoadOptions(str(fitted.checkpoint), pooling="mean", device="cpu", reader="text-layer")


def test_on_pages_of_the_sample_mteb_finds_what_our_evaluation_finds(tmp_path, monkeypatch, session_cache):
    subsets = two_languages(graded(load_corpus("sample").split("validation").sample_pages(60)))
    model = load_mteb_model(LoadOptions("page-text", device="cpu", reader="text-layer", long_pages="truncate"))
    passed = counting(model, monkeypatch)
    unrounded, result = by_mteb(model, retrieval_task(subsets, "SamplePages"))
    assert len(passed) == len({page.page_id for page in subsets["forwards"].pages}) == 60
    ours = {name: ours_of_backbone(model.backbone, part, tmp_path) for name, part in subsets.items()}
    assert_same(unrounded, result, ours)
    assert result.get_score() == pytest.approx(np.mean([by_k[5].mean for by_k in ours.values()]), abs=1e-5)


@pytest.mark.parametrize("system", [None, "miner", "trained_maps", "final_layer_head", "backbone"])
def test_saved_systems_score_as_in_our_evaluation(system, fitted, handbooks, tmp_path):
    model = load_mteb_model(fitted.fusion, system)
    assert isinstance(model, SearchProtocol)
    unrounded, result = by_mteb(model, retrieval_task(handbooks, "Handbooks"))
    (saved,) = load_systems(fitted.fusion, model.backbone.key(), [system or "miner"])
    module = saved.modules[int(np.argmax(saved.validation_ndcg_at_5))]
    ours = {name: ours_of_system(model.backbone, module, part, tmp_path) for name, part in handbooks.items()}
    assert_same(unrounded, result, ours)
    assert model.mteb_model_meta.name == f"miner_diag/small-bert-{system or 'miner'}"


def test_systems_differ_from_each_other(fitted, handbooks):
    """The negative control: the comparison above would notice another system's vectors."""
    task = retrieval_task(handbooks)
    ranked = [by_mteb(load_mteb_model(fitted.fusion, name), task)[0] for name in ("miner", "trained_maps", "backbone")]
    assert all(one != other for number, one in enumerate(ranked) for other in ranked[:number])


def image_task(subsets, words=TASKS_WORDS, name="Pictures"):
    """A task as ViDoRe V3 is laid out: pictures alone, and a table of the corpus for every language."""

    class Pictures(AbsTaskRetrieval):
        metadata = TaskMetadata(
            dataset={"path": "here", "revision": "1"},
            name=name,
            description="pictures",
            prompt={"query": words},
            type="DocumentUnderstanding",
            category="t2i",
            modalities=["text", "image"],
            eval_langs={subset: ["und-Zyyy"] for subset in subsets},
            main_score="ndcg_at_10",
        )

        def load_data(self, num_proc=None, **kwargs):
            self.dataset = {}
            for subset, (rows, queries) in subsets.items():
                corpus = datasets.Dataset.from_dict(
                    {"id": [f"{subset}-{one['id']}" for one in rows], "image": [one["image"] for one in rows]},
                    datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()}),
                )
                asked = datasets.Dataset.from_dict(
                    {"id": list(queries), "text": [text for text, _ in queries.values()]}
                )
                qrels = {key: {f"{subset}-{page}": 1} for key, (_, page) in queries.items()}
                self.dataset[subset] = {
                    "test": {"corpus": corpus, "queries": asked, "relevant_docs": qrels, "top_ranked": None}
                }
            self.data_loaded = True

    return Pictures()


def picture(number, mode="RGB"):
    """A page of random blocks, sometimes with transparency, of an odd size."""
    rng = np.random.default_rng(number)
    size = (40 + 7 * (number % 5), 50 + 11 * (number % 3))
    blocks = Image.fromarray(rng.integers(0, 256, (6, 5, len(mode)), dtype=np.uint8), mode=None)
    content = io.BytesIO()
    blocks.resize(size, Image.Resampling.NEAREST).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Rows of a hub's data set, one picture transparent, and the folder that our own loader reads."""
    texts = [f"which {word} of {other}" for word in ("table", "figure", "page", "image") for other in ("it", "to", "a")]
    rows = [row(number, text, picture(number, "RGBA" if number == 4 else "RGB")) for number, text in enumerate(texts)]
    return SimpleNamespace(rows=rows, folder=save(tmp_path_factory.mktemp("pictures") / "data", "train", rows))


def looking(folder, kind="qwen3_vl", **options):
    """Save a small retriever that looks at pages, and return how it is loaded."""
    if kind == "siglip":
        return LoadOptions(str(save_dual_encoder(folder, kind)), device="cpu", **options)
    saved = save_qwen(folder, kind)
    known = folder.name.startswith("Qwen3-VL")
    family = {} if known else {"model_family": kind}
    return LoadOptions(str(saved), device="cpu", max_pixels=64 * 64, **family, **options)


@pytest.mark.parametrize("kind", ["qwen3_vl", "siglip"])
def test_retrievers_that_look_at_pictures_score_as_over_our_loader_of_hub_data(kind, pictures, tmp_path, monkeypatch):
    load = looking(tmp_path / kind, kind)
    model = load_mteb_model(load)
    passed = counting(model, monkeypatch)
    queries = {one["id"]: (one["query"], one["id"]) for one in pictures.rows}
    unrounded, result = by_mteb(model, image_task({name: (pictures.rows, queries) for name in ("german", "english")}))
    assert len(passed) == len(pictures.rows), "both languages show the same pictures, under other ids"
    assert unrounded["german"] == unrounded["english"]
    corpus = load_hub_folder(pictures.folder)
    ours = ours_of_backbone(load_backbone(load, render=corpus.render), corpus, tmp_path / "store")
    assert_same({"german": unrounded["german"]}, result, {"german": ours}, main=10)


def cosines(model, rows):
    """Return the scores of a corpus of pictures, by the number of the row."""
    task = image_task({"a": (rows, {"q": ("which table", rows[0]["id"])})})
    given, common = index_of(model, task, "a")
    found = model.search(given["queries"], top_k=len(rows), **common)["q"]
    return np.array([found[page_id] for page_id in given["corpus"]["id"]])


def test_pages_are_known_by_what_they_hold_and_not_by_their_ids(pictures, tmp_path, monkeypatch):
    """The same id for another picture, as in every set of ViDoRe V1 and V2, is another page, of another shape."""
    load = looking(tmp_path / "small")
    model = load_mteb_model(load)
    passed = counting(model, monkeypatch)
    rows = pictures.rows[:3]
    others = [{**one, "image": two["image"]} for one, two in zip(rows, pictures.rows[5:8], strict=True)]
    first, second = cosines(model, rows), cosines(model, others)
    assert len(passed) == len(set(passed)) == 6
    assert np.array_equal(cosines(model, rows), first) and len(passed) == 6, "nothing passes twice"
    np.testing.assert_allclose(second, cosines(load_mteb_model(load), others), rtol=0, atol=TOLERANCE)
    assert np.abs(second - first).max() > 1e-3


def test_pages_that_hold_the_same_pass_once_and_score_alike(small_load, monkeypatch):
    model = load_mteb_model(small_load)
    passed = counting(model, monkeypatch)
    corpus = datasets.Dataset.from_dict({"id": list("abc"), "text": ["anchor basin", "tide", "anchor basin "]})
    model.index(corpus, task_metadata=TEXTS, **COMMON)
    (found,) = model.search(
        datasets.Dataset.from_dict({"id": ["q"], "text": ["basin"]}), task_metadata=TEXTS, top_k=9, **COMMON
    ).values()
    assert len(passed) == 2 and found["a"] == found["c"] != found["b"]


def test_what_is_cut_is_said_once_of_the_same_pages(small_load, caplog):
    model = load_mteb_model(small_load)
    corpus = table(text=["anchor " * 90, "tide"])
    for _ in range(2):
        model.index(corpus, task_metadata=TEXTS, **COMMON)
    (said,) = [one.getMessage() for one in caplog.records if one.name.startswith("miner_diag.evaluation.mteb")]
    assert said.startswith("Given: 1 of 2 pages are cut at 48 tokens: ")


def index_of(model, task, subset):
    """Index a subset of a task; return its tables, and the arguments that mteb gives with every call."""
    task.load_data()
    given = task.dataset[subset]["test"]
    common = {"task_metadata": task.metadata, **COMMON, "hf_subset": subset}
    model.index(given["corpus"], **common)
    return given, common


def test_results_are_kept_where_mteb_reads_them_and_never_for_another_model(
    fitted, handbooks, small_load, tmp_path, monkeypatch
):
    task, cache = retrieval_task(handbooks, "Handbooks"), mteb.ResultCache(tmp_path)
    model = load_mteb_model(small_load)
    first = by_mteb(model, task, cache=cache)[1]
    monkeypatch.setattr(model, "index", None)
    again = by_mteb(model, task, cache=cache, overwrite_strategy="only-cache")[1]
    assert again.get_score() == first.get_score()
    meta = model.mteb_model_meta
    path = cache.get_task_result_path("Handbooks", meta)
    assert path == tmp_path / "results" / "miner_diag__small-bert" / meta.revision / "Handbooks.json"
    assert mteb.TaskResult.from_disk(path).get_score() == first.get_score()
    assert cache.load_task_result("Handbooks", meta).dataset_revision == task.metadata.dataset["revision"]
    kept = json.loads((path.parent / "model_meta.json").read_text())
    assert kept["loader_kwargs"]["page"] == model.backbone.key("page")
    others = [
        load_mteb_model(replace(small_load, query_prompt="ocean ")),
        load_mteb_model(fitted.fusion),
        load_mteb_model(fitted.fusion, "backbone"),
    ]
    assert len({meta.revision, *(other.mteb_model_meta.revision for other in others)}) == 4
    for other in others:
        assert cache.load_task_result("Handbooks", other.mteb_model_meta) is None
    assert load_mteb_model(small_load).mteb_model_meta == meta


def test_what_is_not_known_of_a_model_is_not_said(small_load):
    meta = load_mteb_model(small_load).mteb_model_meta
    said = {name for name, value in meta if value is not None}
    assert said == {
        "name",
        "revision",
        "loader_kwargs",
        "embed_dim",
        "framework",
        "similarity_fn_name",
        "modalities",
        "model_type",
    }
    assert meta.embed_dim == 32 and meta.modalities == ["text"] and meta.similarity_fn_name.value == "cosine"


def test_a_fusion_is_not_measured_on_pages_that_it_was_fitted_to(fitted, small_load):
    seen = load_corpus(fitted.documents, queries="verbatim").split("validation")
    task = retrieval_task(seen, "Seen")
    with pytest.raises(EvaluationError, match=r"cannot be evaluated here, because it has seen these pages: \d+ of"):
        mteb.evaluate(load_mteb_model(fitted.fusion), task, cache=None, show_progress_bar=False)
    by_mteb(load_mteb_model(small_load), task)  # nothing was fitted to the retriever


def test_candidates_of_reranking_are_ranked_among_themselves(handbooks, small_load):
    model = load_mteb_model(small_load)
    given, common = index_of(model, retrieval_task(handbooks), "forwards")
    everything = model.search(given["queries"], top_k=1000, **common)
    assert all(len(ranked) == len(given["corpus"]) for ranked in everything.values())
    best = model.search(given["queries"], top_k=3, **common)
    first, second, *_ = everything
    assert list(best[first].items()) == list(everything[first].items())[:3]
    candidates = {first: list(given["corpus"]["id"])[:4], second: []}
    some = model.search(given["queries"], top_k=3, top_ranked=candidates, **common)
    expected = [item for item in everything[first].items() if item[0] in candidates[first]][:3]
    assert list(some[first].items()) == expected and some[second] == {}
    with pytest.raises(EvaluationError, match=r"lists page 'nowhere' for query .*, which is not in the corpus"):
        model.search(given["queries"], top_k=3, top_ranked={first: ["nowhere"]}, **common)


def table(**columns):
    return datasets.Dataset.from_dict({"id": [str(number) for number in range(2)], **columns})


def metadata(category, modalities, prompt=None):
    return TaskMetadata(
        dataset={"path": "here", "revision": "1"},
        name="Given",
        description="given",
        prompt=prompt,
        type="Retrieval",
        category=category,
        modalities=modalities,
        eval_langs=["und-Zyyy"],
        main_score="ndcg_at_5",
    )


TEXTS = metadata("t2t", ["text"])
PICTURES = metadata("t2i", ["text", "image"])
COMMON = {"hf_split": "test", "hf_subset": "default", "encode_kwargs": {}}


def test_texts_are_those_that_mteb_hands_to_any_model(small_load):
    """Against mteb's own loader: the title stands before a page's text, an instruction behind a query's."""
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    from miner_diag.evaluation.mteb.rows import GivenPages, read_queries

    corpus = table(text=["anchor basin ", "canal"], title=["delta", ""])
    queries = table(text=["reef strait", " tide "], instruction=["find it", None])
    for kind, rows in ((PromptType.document, corpus), (PromptType.query, queries)):
        loader = create_dataloader(rows, task_metadata=TEXTS, prompt_type=kind)
        theirs = [row["text"] for row in loader.dataset]
        if kind is PromptType.query:
            ours = [query.text for query in read_queries(rows, ["text"], "Given")]
        else:
            ours = [page.text for page in GivenPages().take(rows, ["text"], "Given").pages.values()]
        assert ours == theirs


def test_what_a_task_does_not_show_is_not_read(pictures):
    from miner_diag.evaluation.mteb.rows import GivenPages

    shown = datasets.Image().encode_example(pictures.rows[0]["image"])
    corpus = table(image=[shown, shown], text=["a", "b"], title=["", ""]).cast_column("image", datasets.Image())
    given = GivenPages().take(corpus, ["image"], "Given")
    assert [page.text for page in given.pages.values()] == [""], "without their texts both pages are the same"
    assert len(GivenPages().take(corpus, ["image", "text"], "Given").pages) == 2


def test_words_before_a_query_are_the_protocols_and_a_task_that_says_others_is_refused(pictures, tmp_path):
    load = looking(tmp_path / "Qwen3-VL-Embedding-2B", protocol="mteb")
    queries = {"q": ("which table", "0")}
    tasks = {words: image_task({"a": (pictures.rows[:3], queries)}, words) for words in (TASKS_WORDS, V1_WORDS)}
    model = load_mteb_model(load)
    assert model.backbone.query_prompt == TASKS_WORDS
    by_mteb(model, tasks[TASKS_WORDS])
    with pytest.raises(
        EvaluationError, match=r"must be its own under --protocol mteb of Qwen3-VL-Embedding-2B: .*query_prompt="
    ):
        by_mteb(model, tasks[V1_WORDS])
    by_mteb(load_mteb_model(replace(load, query_prompt=V1_WORDS)), tasks[V1_WORDS])
    for task in tasks.values():  # the authors' words are the authors', whatever a task says
        by_mteb(load_mteb_model(replace(load, protocol="authors")), task)


def test_a_run_file_is_no_retriever(tmp_path):
    path = tmp_path / "other.trec"
    path.write_text("q Q0 p 1 1.0 other\n")
    with pytest.raises(
        EvaluationError, match="is a run file, which holds rankings and embeds nothing; give a retriever"
    ):
        load_mteb_model(path)


def test_a_task_that_a_retriever_cannot_read_is_refused_with_a_sentence(small_load, pictures, tmp_path):
    model = load_mteb_model(small_load)
    with pytest.raises(ValueError, match=r"supports \['text'\], but none overlap"):  # mteb's own sentence
        by_mteb(model, image_task({"a": (pictures.rows[:3], {"q": ("which", "0")})}))
    with pytest.raises(
        StoreError, match=r"small-bert finds nothing to read on any of the 1 pages of Given \(default, te"
    ):
        model.index(table(text=["", " "]), task_metadata=TEXTS, **COMMON)
    looks = load_mteb_model(looking(tmp_path / "small"))
    with pytest.raises(BackboneError, match=r"page 0 #\w{16} comes without a picture, and the retriever wants to look"):
        looks.index(table(text=["anchor", "basin"]), task_metadata=TEXTS, **COMMON)


@pytest.mark.parametrize(
    ("corpus", "task", "sentence"),
    [
        (
            table(body=["a", "b"]),
            TEXTS,
            r"must have a column image or text that the task shows \(text\); it has id, bod",
        ),
        (table(image=["a.png", "b.png"]), PICTURES, r"the column image of Given must hold pictures; it holds Value"),
        (
            table(image=["a.png", "b.png"]).cast_column("image", datasets.Image()),
            PICTURES,
            r"page 0 of Given must hold its picture, and names the file 'a\.png' instead",
        ),
        (table(text=["a", "b"]).select([]), TEXTS, r"the corpus of Given \(default, test\) holds no page"),
    ],
    ids=["columns", "kind", "path", "empty"],
)
def test_a_corpus_that_cannot_be_read_is_refused(corpus, task, sentence, small_load):
    with pytest.raises(EvaluationError, match=sentence):
        load_mteb_model(small_load).index(corpus, task_metadata=task, **COMMON)


def test_queries_that_are_no_texts_are_refused(small_load):
    model = load_mteb_model(small_load)
    with pytest.raises(EvaluationError, match=r"search of Given has no pages; call index with its corpus first"):
        model.search(table(text=["a", "b"]), task_metadata=TEXTS, top_k=3, **COMMON)
    model.index(table(text=["anchor", "basin"]), task_metadata=TEXTS, **COMMON)
    with pytest.raises(EvaluationError, match=r"must ask with one text a query; it asks with image, and .* holds str"):
        model.search(table(text=["a", "b"]), task_metadata=metadata("i2t", ["text", "image"]), top_k=3, **COMMON)
    with pytest.raises(EvaluationError, match=r"holds no page"):
        model.index(table(text=["a", "b"]).select([]), task_metadata=TEXTS, **COMMON)
    with pytest.raises(EvaluationError, match=r"search of Given has no pages"):  # not those of the corpus before
        model.search(table(text=["a", "b"]), task_metadata=TEXTS, top_k=3, **COMMON)
    model.index(table(text=["anchor", "basin"]), task_metadata=TEXTS, **COMMON)
    turns = [[{"role": "user", "content": "a"}]] * 2
    with pytest.raises(EvaluationError, match=r"must ask with one text a query; it asks with text"):
        model.search(table(text=turns), task_metadata=TEXTS, top_k=3, **COMMON)


def test_other_precisions_are_refused_which_mteb_would_name_beside_the_scores(small_load, handbooks):
    with pytest.raises(EvaluationError, match=r"precision in encode_kwargs must be float32, .*; got 'int8'"):
        by_mteb(load_mteb_model(small_load), retrieval_task(handbooks), encode_kwargs={"precision": "int8"})


def test_what_cannot_be_loaded_is_refused(fitted, small_load, monkeypatch):
    with pytest.raises(
        EvaluationError, match=r"system names a saved system of a fusion run, and page-text is a retriev"
    ):
        load_mteb_model("page-text", "miner")
    with pytest.raises(EvaluationError, match=r"runs/nothing is not there; run python -m miner_diag\.fusion"):
        load_mteb_model("runs/nothing")
    with pytest.raises(UnknownBackboneError, match=r"'page-text-late' is a late-interaction model"):
        load_mteb_model("page-text-late")
    with pytest.raises(ValueError, match=r"holds no system nothing; it holds backbone, "):
        load_mteb_model(fitted.fusion, "nothing")
    with pytest.raises(EvaluationError, match=r"data must hold at least one corpus; got none"):
        retrieval_task({})
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.setitem(sys.modules, "mteb.abstasks", None)
    with pytest.raises(EvaluationError, match=r'mteb is not installed; it comes with the extra "mteb"'):
        load_mteb_model(small_load)
    with pytest.raises(EvaluationError, match=r'mteb is not installed; it comes with the extra "mteb"'):
        retrieval_task(load_corpus(fitted.documents))


def test_a_task_shows_pictures_where_they_are_asked_for(tmp_path, session_cache):
    corpus = load_corpus(write_handbooks(tmp_path / "books", sizes=(2, 2)), queries="hidden")
    task = retrieval_task(corpus, pictures=True)
    task.load_data()
    shown = task.dataset["default"]["test"]["corpus"]
    for page, given in zip(corpus.pages, shown, strict=True):
        assert given["id"] == page.page_id and given["text"] == page.text and given["page_hash"] == page.page_hash
        assert np.array_equal(np.asarray(given["image"]), np.asarray(corpus.render(page.page_id)))
    assert task.metadata.get_modalities() == ["text", "image"] and task.metadata.name == "books"
    with pytest.raises(EvaluationError, match=r"all corpora of a task must leave a query's own page out"):
        retrieval_task({"a": corpus, "b": replace(corpus, ignore_self=True)})
