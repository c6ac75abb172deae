"""Run cells: organism, streamed sums, readouts, probes, record. The cells share a base model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.base.params import parse
from helpers.lm import models
from helpers.records import runs
from helpers.records.study import find_study, own_cells
from helpers.studies.actdiff import domains, measures, organisms, reading, topics
from helpers.studies.actdiff.broad_text import broad_text_record
from helpers.studies.actdiff.capture import capture
from helpers.studies.actdiff.documents import file_documents
from helpers.studies.actdiff.known import Known
from helpers.studies.actdiff.lens import assert_same_head, open_lens
from helpers.studies.actdiff.material import Material, pocket_material, text_material
from helpers.studies.actdiff.pair import SIDES, Pair, open_pair, tuned_folder, tuned_record
from helpers.studies.actdiff.params import LensCell
from helpers.studies.actdiff.statistics import Stats
from helpers.studies.actdiff.study import STUDY
from helpers.studies.actdiff.texts import own


@dataclass
class Session:
    """The base model of a grid, loaded for the first cell that has work to do and shared by all."""

    p: LensCell

    @property
    def name(self) -> str:
        """The name for ``models.load``: this study has a pocket base of its own."""
        return str(organisms.POCKET) if self.p.topical else self.p.model

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """The ``model`` entry of a record, without loading the model."""
        entry = models.facts(self.name, revision=self.p.revision, device=self.p.device, dtype=self.p.dtype)
        return entry | {"name": self.p.model}

    @functools.cached_property
    def loaded(self) -> models.LoadedModel:
        """The base model and its tokenizer; ``ModelError`` by name where its activations cannot be read."""
        models.choose_threads()
        loaded = models.load(self.name, revision=self.p.revision, device=self.p.device, dtype=self.p.dtype)
        open_lens(Pair(loaded.model, loaded.model))
        return loaded

    @functools.cached_property
    def known(self) -> Known:
        """What has been computed of the base model alone."""
        return Known()

    def base(self, p: LensCell) -> models.LoadedModel:
        """Return the base model. Raises ``ModelError`` where LoRA of the cell cannot be put on it."""
        made = organisms.ORGANISMS.get(p.organism)
        if made and made.method == "lora":
            models.check_targets(self.loaded.model, p.targets)
        return self.loaded

    def broad(self, p: LensCell) -> dict[str, runs.Record]:
        """Return the records of unrelated text by the base model, to read and to train on, if the cell needs any."""
        if p.topical or p.text:
            return {}
        wanted = {"read": (p.documents, p.positions)}
        if not p.tuned:
            wanted["train"] = (p.train_documents, p.train_positions)
        name = Path(p.model).name
        return {
            use: broad_text_record(use, n, length, lambda: self.base(p), self.facts, name)
            for use, (n, length) in wanted.items()
        }

    def material(self, p: LensCell) -> Material:
        """Return documents, domains and prompts of a cell."""
        loaded = self.base(p)
        if p.topical:
            return pocket_material(p, loaded)
        if p.text:
            wanted = p.documents + (0 if p.tuned else p.train_documents)
            rows = file_documents(loaded.tokenizer, _text(p), wanted, p.positions)
            return text_material(p, loaded, rows[: p.documents], rows[p.documents :])
        kept = {
            use: [list(map(int, ids)) for ids in record.table("documents")["ids"]]
            for use, record in self.broad(p).items()
        }
        return text_material(p, loaded, kept["read"], kept.get("train", []))


def run_cells(
    cells: Sequence[LensCell], *, notebook: str | None = None, session: Session | None = None
) -> list[runs.Record]:
    """Run each of ``cells`` that has no complete record yet; return all their records, in the same order."""
    cells = own_cells(LensCell, cells)
    session = session or Session(cells[0])
    return [run_cell(cell, session, notebook) for cell in tqdm(cells, desc=f"{notebook or STUDY.name}: cells")]


def run_cell(p: LensCell, session: Session, notebook: str | None = None) -> runs.Record:
    """Read the record of one cell, or make its organism and read that. Steps already on disk are reused."""
    ready = _ready_organism(p, session)
    with runs.open_run(
        STUDY, params=_params(p, ready), cell=p.coordinates() | {"model": p.model}, data=_data(p, ready),
        model=session.facts, inputs=_inputs(p, session, ready), notebook=notebook,
        prefix="-".join(filter(None, (Path(p.model).name, p.organism, p.domain, f"s{p.seed}"))),
    ) as run:  # fmt: skip
        if not run.complete:
            material = session.material(p)
            with open_pair(session.loaded, _tuned(run, p, material, ready)) as pair:
                _read(run, p, material, pair, session.known)
        return run.record


Ready = runs.Record | Path | str
"""A fine-tune that exists: a run record with its adapter, a folder, or a hub id."""


def _ready_organism(p: LensCell, session: Session) -> Ready | None:
    """Return the given fine-tune or a cached organism, or None if this run has to train it."""
    sha256 = session.facts["sha256"]
    if p.organism == "given":
        return tuned_record(p.tuned, sha256) or tuned_folder(p.tuned) or p.tuned
    folder = organisms.cache_folder(sha256, p)
    return folder if folder.is_dir() else None


def _tuned(run: runs.Run, p: LensCell, material: Material, ready: Ready | None) -> Path | str:
    """Return the place of the fine-tune, after training it if there is none."""
    if ready is None:
        return run.folder("adapter", lambda folder: organisms.train(material, p, folder, run.scratch("adapter")))
    return ready.folder("adapter") if isinstance(ready, runs.Record) else ready


def _params(p: LensCell, ready: Ready | None) -> dict[str, Any]:
    """Return the parameters of a cell, with a record by its reference and a hub model by commit and content."""
    if isinstance(ready, runs.Record):
        return p.resolved() | {"tuned": ready.ref}
    if not isinstance(ready, str):
        return p.resolved()
    given = models.fingerprint(ready)
    return p.resolved() | {"tuned_revision": given["revision"], "tuned_sha256": given["sha256"]}


def _inputs(p: LensCell, session: Session, ready: Ready | None) -> dict[str, str]:
    """Return the records that a cell uses: its unrelated text, and the run whose adapter it reads."""
    inputs = {f"{use}_text": record.ref for use, record in session.broad(p).items()}
    return inputs | ({"tuned": ready.ref} if isinstance(ready, runs.Record) else {})


def _data(p: LensCell, ready: Ready | None) -> list[Path]:
    """Return the files that the cell uses, besides the base model."""
    used = [topics.PATH if p.topical else domains.PATH, *([_text(p)] if p.text else [])]
    return [*used, ready] if isinstance(ready, Path) else used


def _text(p: LensCell) -> Path:
    return files.from_root(p.text)


def replay(record: runs.Record) -> runs.Record:
    """Run the cell of ``record`` again in the current outputs folder, after the run whose adapter it reads."""
    given = {name: value for name, value in record.params.items() if name in LensCell.model_fields}
    p = parse(LensCell, given, f"of {record.ref}")
    if "tuned" in record.inputs:
        made = runs.load(record.path.parent.parent / record.inputs["tuned"])  # beside it, wherever that is
        study = find_study(made.study)
        if study.replay is None:
            raise RecordError(f"{made.ref} cannot be replayed, and {record.ref} reads its adapter. Replay another.")
        study.replay(made)
    return run_cell(p, Session(p), record.notebook)


def _read(run: runs.Run, p: LensCell, material: Material, pair: Pair, known: Known) -> None:
    pair.check_moves(material.unrelated)
    assert_same_head(pair)
    layer = pair.check_layer(pair.depth // 2 if p.layer is None else p.layer)
    layers = list(range(pair.depth)) if p.layers == "all" else sorted({*p.layers, layer})
    folder = run.folder("stats", lambda folder: _capture(p, material, pair, layers, known, folder))
    lens = {side: open_lens(pair, side) for side in SIDES}
    r = reading.Reading(p, material, pair, Stats.load(folder / "stats.safetensors"), layer, lens, known)
    _readouts(run, r)
    if p.own_text and r.domain:
        _texts(run, r)
    if p.probed == "all" or p.organism in p.probed:
        _probes(run, r)
    run.finish(note=f"layer {layer}, position {p.position}, domain {material.domain}")


def _capture(p: LensCell, material: Material, pair: Pair, layers: list[int], known: Known, folder: Path) -> None:
    states = known.states(pair, material.unrelated, layers, p.positions)
    stats = capture(pair.base, pair.tuned, material.unrelated, layers, positions=p.positions, states=states)
    stats.save(folder / "stats.safetensors")


def _readouts(run: runs.Run, r: reading.Reading) -> None:
    """Do the steps that need the sums only, and the losses to compare them with."""
    run.step("losses", lambda: reading.losses(r))
    # The last digits of long sums and of eigenvectors depend on the number of threads, which depends on the load.
    with models.threads(1):
        run.step("fixed", lambda: reading.fixed(r))
        run.step("positions", lambda: reading.readouts.position_table(r.stats))
        run.step("offset", lambda: reading.readouts.offset(r.stats, r.layer))
        run.step("cosine_tables", lambda: reading.cosines(r))
        run.step("heads", lambda: reading.heads(r))
        run.step("tokens", lambda: reading.tokens(r))
        run.step("components", lambda: reading.components(r))
        if r.domain:
            run.step("places", lambda: reading.places(r))
            run.step("readout", lambda: reading.readout(r))
            run.step("replicates", lambda: reading.replicates(r))
            run.step("scores_and_noise", lambda: reading.all_scores(r))


def _texts(run: runs.Run, r: reading.Reading) -> None:
    """Score the domains by fold of documents, on the model's own text too where the cell is asked for it."""
    asked = r.p.own_text == "all" or r.p.organism in r.p.own_text
    written = run.step("own_text", lambda: own.own_text(r)) if asked else None
    with models.threads(1):
        run.step("text_scores", lambda: own.text_scores(r, written))


def _probes(run: runs.Run, r: reading.Reading) -> None:
    """Do the steps that need the pair itself."""
    run.step("interpolation", lambda: reading.interpolation(r))
    run.step("swap", lambda: reading.swaps(r))
    if r.domain:
        run.step("patchscope", lambda: reading.patches(r))
        by_strength = run.step("strengths", lambda: reading.strengths(r))
        run.step("steering", lambda: reading.steering(r, by_strength))
        if r.material.narrow:
            run.step("frequencies", lambda: measures.frequencies(r.material.narrow, r.material.unrelated))
