"""The tables of a benchmark's data set: queries, corpus and qrels, shared by all languages or one of each a language.

One table of each serves all languages (:data:`~miner_diag.corpus.benchmark_manifest.SHARED`), or each language has its
own (:data:`~miner_diag.corpus.benchmark_manifest.BY_LANGUAGE`). Either way the pages are those of all languages, and a
query belongs to one. Qrels name the queries of all languages, whichever table they stand in: a judgement counts for the
language of its query.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from miner_diag.corpus.benchmark_manifest import BY_LANGUAGE, LANGUAGE, SHARED
from miner_diag.corpus.core import CorpusError
from miner_diag.corpus.hub_files import HubFiles, found_column
from miner_diag.corpus.hub_pictures import picture_facts
from miner_diag.qrels import Pair, Qrels, qrels_of

QUERY_ID, QUERY_TEXT, QUERY_LANGUAGE = ("query-id", "id", "_id"), ("query", "text"), "language"
PAGE_ID = ("corpus-id", "id", "_id")
JUDGED_QUERY, JUDGED_PAGE, GRADE = "query-id", "corpus-id", "score"
"""What columns are called; of several names the first that is there is read."""
TEXTS = ("string", "large_string")
NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
"""The kinds that a column of texts, or of ids and grades, may be of."""


@dataclass
class Pages:
    """What a table of pages holds."""

    hashes: dict[str, str] = field(default_factory=dict)
    """page id -> the SHA-256 of its picture's file."""
    problems: dict[str, str] = field(default_factory=dict)
    """page id -> why its picture cannot be used."""
    places: dict[str, tuple[Any, int]] = field(default_factory=dict)
    """page id -> the table with its picture and the number of its row."""


@dataclass
class Tables:
    """What the tables of a data set hold."""

    queries: dict[str, dict[str, str]]
    """Language -> query id -> text."""
    qrels: dict[str, Qrels]
    """Language -> the judgements of its queries."""
    pages: Pages
    """The pages of all languages."""

    def rows(self) -> Iterator[list[Any]]:
        """Yield everything that can change a number."""
        yield from (["page", page_id, page_hash] for page_id, page_hash in self.pages.hashes.items())
        for language, texts in self.queries.items():
            yield from (["query", language, query_id, text] for query_id, text in texts.items())
            for query_id, judged in self.qrels[language].items():
                yield from (["grade", query_id, page_id, grade] for page_id, grade in judged.items())

    def counts(self) -> dict[str, Any]:
        """Return what a manifest states the counts of; of queries and judgements for each language."""
        sound = self.pages.hashes.keys() - self.pages.problems.keys()
        return {
            "pages": len(self.pages.hashes),
            "pictures": len({self.pages.hashes[page_id] for page_id in sound}),
            "queries": {language: len(qrels) for language, qrels in self.qrels.items()},
            "judgements": {
                language: sum(grade > 0 for judged in qrels.values() for grade in judged.values())
                for language, qrels in self.qrels.items()
            },
        }


def layout_of(configs: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return which of the two layouts a data set has; None if it has neither."""
    if set(SHARED) <= set(configs):
        return SHARED
    return BY_LANGUAGE if _languages(configs) else None


def _languages(configs: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the languages that have tables of their own, in the order of the card."""
    ends = [config.removeprefix(LANGUAGE) for config in BY_LANGUAGE]
    found = (config.removesuffix(ends[0]) for config in configs if config.endswith(ends[0]))
    return tuple(one for one in found if one and all(f"{one}{end}" in configs for end in ends))


def read_tables(
    files: HubFiles, layout: tuple[str, ...], split: str, stated: Sequence[str], *, check_pages: bool
) -> Tables:
    """Read all tables of a data set, its pages once.

    Parameters
    ----------
    files : HubFiles
        The data set.
    layout : tuple of str
        What `layout_of` returned.
    split : str
        The split that is read, or the only one that is there.
    stated : sequence of str
        The languages, where a manifest states them; else those that the tables name.
    check_pages : bool
        Whether the ids of other languages' pages are compared with those that are read.

    Raises
    ------
    CorpusError
        If a table or a column cannot be read or is not there, an id stands twice, qrels name an unknown query or page,
        a language is not stated, or languages differ in their pages.
    """
    if layout == SHARED:
        queries = _texts_by_language(files, split, stated)
        pages = _pages(files, "corpus", split)
        every = {query_id for texts in queries.values() for query_id in texts}
        judged = _judgements(files, "qrels", split, every, every, pages.hashes)
        qrels = {
            language: {query_id: judged[query_id] for query_id in judged if query_id in texts}
            for language, texts in queries.items()
        }
        return Tables(queries, qrels, pages)
    languages = stated or _languages(files.configs)
    queries_of, corpus_of, qrels_of_ = ({one: config.replace(LANGUAGE, one) for one in languages} for config in layout)
    queries = {language: _texts(files, config, split)[0] for language, config in queries_of.items()}
    first, *others = corpus_of.values()
    pages = _pages(files, first, split)
    for config in others if check_pages else ():
        _check_same_pages(files, first, config, split, pages.hashes)
    every = {query_id for texts in queries.values() for query_id in texts}
    qrels = {
        language: _judgements(files, config, split, queries[language], every, pages.hashes)
        for language, config in qrels_of_.items()
    }
    if len(every) < sum(map(len, queries.values())):
        queries = {one: {f"{one}/{name}": text for name, text in texts.items()} for one, texts in queries.items()}
        qrels = {one: {f"{one}/{name}": judged for name, judged in of.items()} for one, of in qrels.items()}
    return Tables(queries, qrels, pages)


def _texts_by_language(files: HubFiles, split: str, languages: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return language -> query id -> text, of a table that holds the queries of all languages."""
    texts, spoken = _texts(files, "queries", split)
    if len(languages) == 1 or (not languages and spoken is None):
        return {languages[0] if languages else "": texts}
    if spoken is None:
        raise CorpusError(
            f"{files.name} (queries) has no column {QUERY_LANGUAGE}, which tells its languages {', '.join(languages)}"
        )
    by_language: dict[str, dict[str, str]] = {language: {} for language in languages or dict.fromkeys(spoken.values())}
    for query_id, text in texts.items():
        language = spoken[query_id]
        if language not in by_language:
            raise CorpusError(
                f"{files.name} (queries): {QUERY_LANGUAGE} of query {query_id!r} must be one of "
                f"{', '.join(by_language)}; got {language!r}"
            )
        by_language[language][query_id] = text
    return by_language


def _texts(files: HubFiles, config: str, split: str) -> tuple[dict[str, str], dict[str, str] | None]:
    """Return query id -> text, and query id -> language where the table has such a column."""
    table = files.table(config, split)
    where = f"{files.name} ({config})"
    ids = _ids(table, QUERY_ID, where)
    texts = [str(text or "").strip() for text in _values(table, QUERY_TEXT, TEXTS, where)]
    spoken = None
    if QUERY_LANGUAGE in table.column_names:
        languages = _values(table, (QUERY_LANGUAGE,), TEXTS, where)
        spoken = dict(zip(ids, (str(language or "") for language in languages), strict=True))
    return dict(zip(ids, texts, strict=True)), spoken


def _pages(files: HubFiles, config: str, split: str) -> Pages:
    """Return the pages of a table; their pictures stay where they are."""
    table = files.table(config, split)
    where = f"{files.name} ({config})"
    ids = _ids(table, PAGE_ID, where)
    if "image" not in table.column_names:
        raise CorpusError(f"{where} has no column image; it has {', '.join(table.column_names)}")
    facts = picture_facts(table.select_columns(["image"]), [])
    pages = Pages()
    for number, (page_id, row) in enumerate(zip(ids, facts, strict=True)):
        pages.hashes[page_id] = row["page_hash"]
        pages.places[page_id] = (table, number)
        if row["problem"]:
            pages.problems[page_id] = row["problem"]
    return pages


def _check_same_pages(files: HubFiles, first: str, config: str, split: str, pages: Collection[str]) -> None:
    """Check that a language has the pages of the first one; only its ids are read."""
    ids = files.column(config, split, PAGE_ID)
    strange = [page_id for page_id in ids if page_id not in pages]
    if strange or len(set(ids)) != len(pages):
        raise CorpusError(
            f"{files.name}: {config} has {len(ids)} pages and {first} {len(pages)}, and {len(strange)} of the former "
            f"are not among the latter{f', the first is {strange[0]!r}' if strange else ''}; all languages must have "
            "the same pages"
        )


def _judgements(
    files: HubFiles, config: str, split: str, mine: Container[str], every: Container[str], pages: Container[str]
) -> Qrels:
    """Return the judgements of the queries in `mine`; those of other known queries are another language's."""
    table = files.table(config, split)
    where = f"{files.name} ({config})"
    columns = [_values(table, (name,), (*TEXTS, *NUMBERS), where) for name in (JUDGED_QUERY, JUDGED_PAGE)]
    grades = _values(table, (GRADE,), NUMBERS, where)
    pairs: dict[tuple[str, str], Pair] = {}
    for number, (query_id, page_id, grade) in enumerate(zip(*map(_named, columns), grades, strict=True)):
        row = f"{where}, row {number}"
        if query_id not in every:
            raise CorpusError(f"{row} judges query {query_id!r}, which is not among the queries")
        if page_id not in pages:
            raise CorpusError(f"{row} judges page {page_id!r}, which is not among the pages")
        if grade is None:
            raise CorpusError(f"{row} has no grade in {GRADE}")
        if (query_id, page_id) in pairs:
            raise CorpusError(f"{row} judges page {page_id!r} for query {query_id!r} once more; a pair stands once")
        pairs[query_id, page_id] = Pair(row, query_id, page_id, grade)
    return qrels_of([pair for pair in pairs.values() if pair.query_id in mine])


def _ids(table: Any, names: Sequence[str], where: str) -> list[str]:
    """Return a table's ids, checked to stand once."""
    seen: set[str] = set()
    ids = _named(_values(table, names, (*TEXTS, *NUMBERS), where))
    for number, name in enumerate(ids):
        if name in seen or not name:
            reason = f"the id {name!r} stands twice; ids must be unique" if name else "it has no id"
            raise CorpusError(f"{where}, row {number}: {reason}")
        seen.add(name)
    return ids


def _named(values: Iterable[Any]) -> list[str]:
    """Return ids as texts; none is "", which no query and no page is called."""
    return ["" if value is None else str(value) for value in values]


def _values(table: Any, names: Sequence[str], kinds: Sequence[str], where: str) -> list[Any]:
    """Return a column that has one of some names and is of one of some kinds."""
    name = found_column(table.column_names, names, where)
    kind = getattr(table.features[name], "dtype", "")
    if kind not in kinds:
        raise CorpusError(f"{where}: column {name} must be {' or '.join(kinds)}; got {table.features[name]}")
    return list(table.select_columns([name])[name])
