"""Fit a fusion and what it is compared with, and save them: what the command of this folder does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm
from tyro.conf import OmitArgPrefixes

from miner_diag.backbones.options import LoadOptions
from miner_diag.command import command_line
from miner_diag.corpus import Corpus
from miner_diag.corpus.options import DataOptions
from miner_diag.corpus.splits import resplit
from miner_diag.corpus.summary import skipped_lines
from miner_diag.embeddings import EmbeddedCorpus, StoreOptions, open_corpus
from miner_diag.files import canonical_json, sha256_bytes
from miner_diag.fusion.building import FusionConfig
from miner_diag.fusion.errors import FusionError
from miner_diag.fusion.fold import FittedFold, closing_lines, fit_fold, fold_facts, score_line, write_fold
from miner_diag.fusion.masks import MaskOptions
from miner_diag.fusion.miner_building import MinerOptions
from miner_diag.fusion.rows import Form, chosen_rows
from miner_diag.fusion.saved_systems import COMMAND
from miner_diag.fusion.sensitivity import SensitivityOptions
from miner_diag.fusion.training import FusionTrainOptions
from miner_diag.fusion.tuning import TuningOptions
from miner_diag.probes.fitted_probes import FittedProbes, fit_for_fusion, read_fitted_probes
from miner_diag.probes.probe_stack import ProbeError
from miner_diag.probes.run import ProbesOptions
from miner_diag.probes.splits import Splits, fitting_splits
from miner_diag.probes.study import StudyOptions
from miner_diag.runs import RunFolder, begin_run, read_run
from miner_diag.stats import StatisticsOptions


@dataclass(frozen=True)
class FusionOptions:
    """Fit a fusion of layers in one vector of the same size, and the heads that it is compared with, and save them.

    Everything is fitted to the train split and chosen on validation; the test split is neither embedded nor read. What
    the saved systems are worth on it is the question of python -m miner_diag.evaluation.
    """

    load: Annotated[LoadOptions, OmitArgPrefixes] = field(default_factory=LoadOptions)
    """Which retriever."""
    data: Annotated[DataOptions, OmitArgPrefixes] = field(default_factory=DataOptions)
    """Which queries and pages."""
    store: Annotated[StoreOptions, OmitArgPrefixes] = field(default_factory=StoreOptions)
    """Where pooled layers are kept."""
    statistics: Annotated[StatisticsOptions, OmitArgPrefixes] = field(default_factory=StatisticsOptions)
    """How intervals and tests of the probes are taken: their tests decide which kind of probe a layer gets. --seed is
    also the seed of the probes' training."""
    form: Form = "miner"
    """The form that is handed out as fusion.safetensors. miner: MINER as its authors describe it, a vector of weights
    for each layer over frozen probes. trained_maps: ours, a number for each layer over maps that are trained further
    from a whitened start. Both are trained and saved among the systems."""
    miner: MinerOptions = field(default_factory=MinerOptions)
    """What the form miner is built of."""
    probe: StudyOptions = field(default_factory=StudyOptions)
    """How the probes of the form trained_maps are fitted and compared, and how its layers are selected."""
    config: FusionConfig = field(default_factory=FusionConfig)
    """What the form trained_maps is built of."""
    mask: MaskOptions = field(default_factory=MaskOptions)
    """Which neurons the form trained_maps keeps."""
    training: FusionTrainOptions = field(default_factory=FusionTrainOptions)
    """How the fusion and all that it is compared with are trained."""
    tuning: Annotated[TuningOptions, OmitArgPrefixes] = field(default_factory=TuningOptions)
    """How often each system is trained."""
    systems: tuple[str, ...] = ("default",)
    """The systems that are trained and saved: default (backbone, whitened final layer, heads and both forms),
    differences (miner with each difference to our form switched alone), all (the whole ablation), or names of rows of
    the ablation. Backbone, heads and both forms are always among them."""
    layers: tuple[int, ...] = ()
    """The layers to fuse, in both forms: rising, the final one last. If none is given, normalized CKA selects those of
    miner, and the probes' nDCG@5 those of trained_maps."""
    folds: tuple[int, ...] = ()
    """Further splits by document, each a number as --fold takes it. Probes, the default systems, and the differences if
    they are among --systems, are fitted to each of them as well, and saved in --out/fold-N."""
    sensitivity: bool = False
    """Also write sensitivity.csv: validation nDCG@5 by kept share, number of layers and threshold of the alignment
    ratio."""
    grid: SensitivityOptions = field(default_factory=SensitivityOptions)
    """What the sensitivity table tries."""
    probes: Path | None = None
    """The folder of a probe run, as python -m miner_diag.probes writes it. If this is not given, the probes in
    --out/probes are used, and fitted there if there are none."""
    out: Path = Path("runs/fusion")
    """The folder that is written to; a run that was stopped goes on there."""

    def __post_init__(self) -> None:
        """Refuse what is unknown and what would have no effect."""
        names = {row.name for row in chosen_rows(self.systems)}
        if len({self.data.fold, *self.folds}) != 1 + len(self.folds) or min(self.folds, default=0) < 0:
            raise ValueError(
                f"folds must be other splits by document than --fold {self.data.fold}, each once; got {self.folds}"
            )
        if not self.sensitivity and self.grid != SensitivityOptions():
            raise ValueError("--grid has no effect without --sensitivity; add it, or leave --grid out")
        if self.probes is not None and not self.folds:
            for flags, given, default in (
                ("options of --probe have", self.probe, StudyOptions()),
                ("--intervals-over, --confidence and --seed have", self.statistics, StatisticsOptions()),
            ):
                if given != default:
                    raise ValueError(f"--probes names probes that are fitted, so {flags} no effect; leave them out")
        self._refuse_idle_shares(names)

    def _refuse_idle_shares(self, names: set[str]) -> None:
        default, rule = MaskOptions(), self.mask.mask
        if rule in ("fixed", "none") and (self.mask.min_share, self.mask.max_share) != (
            default.min_share,
            default.max_share,
        ):
            raise ValueError(f"--mask.min-share and --mask.max-share have no effect with --mask.mask {rule}")
        if self.mask.share != default.share and rule != "fixed" and "fixed_mask" not in names:
            raise ValueError(
                f"--mask.share has no effect with --mask.mask {rule}, unless the system fixed_mask is trained"
            )
        if self.config.start == "identity" and self.config.shrinkage != FusionConfig().shrinkage:
            if "whitened" not in names:
                raise ValueError(
                    "--config.shrinkage has no effect with --config.start identity, unless the system whitened is made"
                )


def run(options: FusionOptions) -> None:
    """Run the command."""
    folder = begin_run(options.out, COMMAND, options)
    embedded_corpus = open_corpus(options.load, options.data, options.store, folder)
    backbone = embedded_corpus.backbone
    if not backbone.shared_layers:
        raise FusionError(
            f"model {backbone.name} is a dual encoder, whose layers do not correspond; a fusion is built for one stack "
            "of layers only. Probe each encoder by itself with python -m miner_diag.probes"
        )
    for number in options.folds:  # before hours are spent on the first one
        check_fold(resplit(embedded_corpus.corpus, number))
    state = state_folder(options, embedded_corpus)
    fold, facts = run_fold(embedded_corpus, options, folder, state)
    lines, folders = closing_lines(fold), {str(fold.number): "."}
    for number in options.folds:
        tqdm.write(f"document split {number}")
        of_fold = options_of_fold(options, number)
        subfolder = begin_run(of_fold.out, COMMAND, of_fold)
        other, other_facts = run_fold(embedded_corpus, of_fold, subfolder, state / of_fold.out.name)
        subfolder.finish(facts=other_facts | {"folds": {str(number): "."}}, lines=closing_lines(other))
        lines += [score_line(other), *other.cautions]
        folders[str(number)] = of_fold.out.name
        folder.stage("further document splits")
    lines += [*fold.splits.notes(), *skipped_lines(embedded_corpus.corpus.skipped)]
    folder.finish(facts=facts | {"folds": folders}, lines=lines, next_command=next_command(options))
    if state.parent.exists():
        shutil.rmtree(state.parent)  # the run is whole


def options_of_fold(options: FusionOptions, number: int) -> FusionOptions:
    """Return the options for a further split by document: the systems of every split, with probes of their own."""
    # fixed_mask is no default system, so the share that it would have is not among these options
    mask = options.mask if options.mask.mask == "fixed" else replace(options.mask, share=MaskOptions().share)
    return replace(
        options,
        data=replace(options.data, fold=number),
        mask=mask,
        systems=("default", "differences") if {"differences", "all"} & set(options.systems) else ("default",),
        folds=(),
        sensitivity=False,
        grid=SensitivityOptions(),
        probes=None,
        out=options.out / f"fold-{number}",
    )


def check_fold(corpus: Corpus) -> None:
    """Raise CorpusError if a split that is needed holds no query."""
    for name in ("train", "validation"):
        corpus.split(name)


def run_fold(
    embedded_corpus: EmbeddedCorpus, options: FusionOptions, folder: RunFolder, state: Path
) -> tuple[FittedFold, dict[str, Any]]:
    """Fit and write one split by document; return what it gave, and what ``run.json`` says of it."""
    corpus, fold = embedded_corpus.corpus, options.data.fold
    splits = fitting_splits(
        embedded_corpus, corpus if fold == corpus.fold else resplit(corpus, fold), memory_gb=options.store.memory_gb
    )
    folder.stage("embed")
    if options.probes is None:
        fitted = own_probes(splits, options, options.out / "probes")
    else:
        fitted = read_fitted_probes(options.probes, _key_of(splits), splits)
    folder.stage("probes")
    result = fit_fold(
        splits,
        fitted,
        chosen_rows(options.systems),
        layers=options.layers,
        form=options.form,
        miner=options.miner,
        config=options.config,
        mask=options.mask,
        training=options.training,
        tuning=options.tuning,
        grid=options.grid if options.sensitivity else None,
        state=state,
        report=tqdm.write,
    )
    folder.stage("training")
    write_fold(result, folder)
    folder.stage("write")
    return result, fold_facts(result, "probes" if options.probes is None else str(options.probes.resolve()))


def own_probes(splits: Splits, options: FusionOptions, folder: Path) -> FittedProbes:
    """Return the probes of this run: those in `folder`, or, if it holds none, new ones that are written there.

    Raises
    ------
    FusionError
        If the folder holds probes that were fitted with other options.
    ProbeError
        If they are damaged, of other documents or another backbone.
    """
    if not (folder / "run.json").exists():
        probes_options = ProbesOptions(
            load=options.load,
            data=options.data,
            store=options.store,
            statistics=options.statistics,
            study=options.probe,
            n_seeds=1,
            controls=False,
            out=folder,
        )
        return fit_for_fusion(
            splits, options.probe, options.statistics, RunFolder(folder, "miner_diag.probes", probes_options)
        )
    again = f"delete {folder}, and this command fits them anew"
    try:
        earlier = read_run(folder)["options"]
    except ValueError as error:
        raise ProbeError(f"{error}; or {again}") from error
    different = [
        *_differences("--probe.", earlier.get("study", {}), options.probe),
        *_differences("--", earlier.get("statistics", {}), options.statistics),
    ]
    if different:
        raise FusionError(
            f"{folder} holds probes that were fitted with other options ({'; '.join(different)}); delete that folder, "
            "choose another --out, or name the probes with --probes"
        )
    try:
        return read_fitted_probes(folder, _key_of(splits), splits)
    except ValueError as error:
        raise ProbeError(f"{error}; or {again}") from error


def state_folder(options: FusionOptions, embedded_corpus: EmbeddedCorpus) -> Path:
    """Return the folder for states of trainings with these very options, data and backbone: others have another one."""
    parts = ("miner", "probe", "statistics", "config", "mask", "training")
    what: dict[str, Any] = {name: _as_json(getattr(options, name)) for name in parts}
    what |= {
        "layers": list(options.layers),
        "probes": None if options.probes is None else str(options.probes.resolve()),
        "corpus": embedded_corpus.corpus.revision,
        "fold": options.data.fold,
        "backbone": embedded_corpus.backbone.key(),
    }
    return options.out / "state" / sha256_bytes(canonical_json(what).encode())[:16]


def next_command(options: FusionOptions) -> str:
    """Return the command that measures what was saved."""
    named = {"systems": options.out, "data": options.data.data}
    return command_line("evaluation", named, options.data, options.store, split="test")


def _key_of(splits: Splits) -> dict[str, str]:
    return splits.validation.embedded.backbone.key()


def _differences(prefix: str, earlier: Mapping[str, Any], options: Any) -> list[str]:
    """Return the options that an earlier run had otherwise, as flags with both values."""
    flat_earlier, flat = _flat(earlier), _flat(_as_json(options))
    names = sorted(set(flat_earlier) | set(flat))
    return [
        f"{prefix}{name.replace('_', '-')}: {flat_earlier.get(name)} there, {flat.get(name)} here"
        for name in names
        if flat_earlier.get(name) != flat.get(name)
    ]


def _flat(options: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return flat


def _as_json(options: Any) -> Any:
    return json.loads(json.dumps(asdict(options)))
