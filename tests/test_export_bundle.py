"""A bundle opens anywhere and proves itself; whatever is forged in it is a finding that names record and field."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from toy_study import CoinCell, commit, project, run_cells
from typer.testing import CliRunner

from helpers.audit import publishing
from helpers.audit.register import register
from helpers.base import files
from helpers.base.errors import ExportError
from helpers.base.params import load
from helpers.cases import facts, open_case
from helpers.cli import app
from helpers.export import bundle, checking, hosts, places
from helpers.records import ledger
from helpers.site import header

pytestmark = pytest.mark.unit
TITLE = '<header id="title-block-header"><h1>Coins</h1></header>'
QUARTO = "project: {render: ['./reports/*.qmd']}\nwebsite: {title: Coins, navbar: {left: []}}\n"
QUARTO += "format: {html: {css: reports/style.css}}\n"


def page_of(root: Path) -> str:
    """The page of the coins as a renderer leaves it: header, two numbers, links to a page and to the runs."""
    case = open_case("reports/coins.qmd", root)
    numbers = [case.fact("heads_rate", bias=0.7), case.fact("heads_rate", bias=0.9).short, case.fact("count.records"),
               case.fact("params.flips")]  # fmt: skip
    shown = " and ".join(one.__html__() for one in numbers)
    body = f'<html lang="en"><main>{TITLE}<p>Heads: {shown}.</p><a href="other.html">Other</a></main></html>'
    return header.place(body, case)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The house of the coins, its rendered pages, and a bundle of it."""
    patch = pytest.MonkeyPatch()
    root = project(tmp_path_factory.mktemp("made") / "house", patch)
    files.write_text(root / "_quarto.yml", QUARTO)
    files.write_text(root / "reports/style.css", "")
    files.write_text(root / "reports/runs.qmd", "---\ntitle: Runs\n---\n")
    register([root / "reports/coins.qmd"], root=root)
    run_cells(load(CoinCell, root / "params/coins/grid.yaml"))
    publishing.publish("coins")
    commit(root)
    site = root.parent / "site"
    files.write_text(site / "reports/coins.html", page_of(root))
    ids = [path.name for path in (root / "published/coins").iterdir()]
    anchors = "".join(f'<p id="{one}">x</p>' for one in ids)
    files.write_text(site / "reports/runs.html", f"<html><main>{anchors}</main></html>")
    files.write_text(site / "reports/other.html", "<html></html>")
    files.write_text(site / "reports/style.css", "")
    files.write_text(site / "index.html", '<html><a href="reports/coins.html">Coins</a></html>')
    out = root.parent / "bundle"
    bundle.export(out, ["coins"], site, root)
    yield root, site, out
    patch.undo()


@pytest.fixture
def forged(made, tmp_path) -> Path:
    """A copy of the bundle, to be changed."""
    return Path(shutil.copytree(made[2], tmp_path / "forged"))


def sealed(folder: Path) -> None:
    """Make the manifest agree with the files again, as a forger would."""
    mark = json.loads((folder / places.MARK).read_text())
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    mark["files"] = {one: files.sha256_file(folder / one) for one in sorted(names) if one != places.MARK}
    (folder / places.MARK).write_text(json.dumps(mark))


def found(folder: Path) -> list[str]:
    return [str(one) for one in checking.verify_bundle(folder).findings]


def test_a_bundle_as_it_was_made_has_no_findings_and_says_what_was_not_checked(made):
    report = checking.verify_bundle(made[2])
    assert report.findings == []
    assert (report.records, report.claims, report.numbers) == (6, 1, 4)
    assert [one.partition(":")[0] for one in report.unchecked][:2] == ["replay", "history"]
    assert report.lines()[-1].startswith("No findings: 6 records, 1 claims and 4 numbers")
    assert report.lines()[-1].endswith(f"The ledger ends in {ledger.read().head}.")


def test_it_checks_where_the_repository_is_another_one(made, tmp_path, monkeypatch):
    """Nothing of the maker's checkout is read but the studies that are installed."""
    for name, folder in {"CLAIMBOOK_OUTPUTS": "o", "CLAIMBOOK_PUBLISHED": "p"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    shutil.copytree(made[0] / "src", tmp_path / "src")
    (tmp_path / "params/coins").mkdir(parents=True)
    shutil.copy(made[0] / "params/coins/experiment.yaml", tmp_path / "params/coins")
    for name, folder in {"ROOT": ".", "PARAMS": "params", "REPORTS": "reports"}.items():
        monkeypatch.setattr(files, name, tmp_path / folder)
    assert found(made[2]) == []
    assert os.environ["CLAIMBOOK_PUBLISHED"] == str(tmp_path / "p")
    shutil.rmtree(tmp_path / "params/coins")
    report = checking.verify_bundle(made[2])
    assert report.findings == [] and report.claims == 0
    said = "\n".join(report.unchecked)
    assert "4 records of the study 'coins', which is not installed here" in said and "the claim coins: " in said


def test_it_opens_from_any_place(made):
    names = {path.relative_to(made[2]).as_posix() for path in made[2].rglob("*.html")}
    assert names == {"index.html", "reports/coins.html", "reports/runs.html"}
    text = "".join((made[2] / name).read_text() for name in names)
    assert (
        'href="/' not in text and "file:" not in text and str(made[0]) not in text and 'href="other.html"' not in text
    )
    assert (made[2] / ".nojekyll").read_text() == ""
    assert (made[2] / "README.md").read_text().startswith("---\ntitle: Coins\nsdk: static\n")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [('<a href="/etc/x.html">x</a>', "leads nowhere"), ("<p>{root}/x</p>", "names a folder of this machine"),
     ('<img src="https://x.example/a.png" alt="x">', "from the network")],
)  # fmt: skip
def test_what_only_opens_here_is_refused_and_leaves_nothing(made, tmp_path, text, sentence):
    root, site, _ = made
    other = Path(shutil.copytree(site, tmp_path / "site"))
    page = other / "reports/coins.html"
    page.write_text(page.read_text().replace("</main>", f"{text.format(root=root)}</main>"))
    with pytest.raises(ExportError, match=sentence):
        bundle.export(tmp_path / "out", ["coins"], other, root)
    assert not (tmp_path / "out").exists() and len(list(tmp_path.iterdir())) == 1


def test_only_what_is_published_goes_out(made, tmp_path):
    root, site, _ = made
    run_cells([CoinCell(bias=0.6)])
    try:
        done = bundle.export(tmp_path / "out", ["coins"], site, root)
    finally:
        shutil.rmtree(root / "outputs/coins")
    assert (done.records, done.unpublished) == (6, {"coins": 1})


def change(name: str, how: Callable[[str], str]) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        [path, *_] = sorted(folder.glob(name))
        was = path.read_text()
        path.write_text(how(was))
        assert path.read_text() != was, "the forgery changed nothing"

    return forge


def metric(folder: Path) -> None:
    def more(text: str) -> str:
        content = json.loads(text)
        content["metrics"]["heads_rate"]["k"] += 1
        return files.record_text(content)

    change("records/coins/*/run.json", more)(folder)
    restated(folder)


def restated(folder: Path) -> None:
    """Write the ledger anew, with the hashes that the forged records have now."""
    rows, before = [], []
    for line in ledger.read((folder / "records/ledger.jsonl").read_text()).lines:
        head = folder / "records" / line.name / "run.json"
        sha = files.sha256_file(head) if line.kind == "record" and head.is_file() else line.sha256
        rows.append(ledger.as_row(line.model_copy(update={"before": before, "sha256": sha})))
        before = [files.sha256_bytes(rows[-1].encode())]
    (folder / "records/ledger.jsonl").write_text("".join(f"{row}\n" for row in rows))


def table(folder: Path) -> None:
    [path, *_] = sorted(folder.glob("records/coins/*/flips.parquet"))
    rows = pd.read_parquet(path)
    rows.loc[:, "heads"] = True
    rows.to_parquet(path)


def table_and_record(folder: Path) -> None:
    table(folder)
    [path, *_] = sorted(folder.glob("records/coins/*/flips.parquet"))
    content = json.loads((path.parent / "run.json").read_text())
    content["files"]["flips.parquet"] = files.sha256_file(path)
    (path.parent / "run.json").write_text(files.record_text(content))
    restated(folder)


def swapped(folder: Path) -> None:
    one, other, *_ = sorted((folder / "records/coins").iterdir())
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)


def added(folder: Path) -> None:
    [one, *_] = sorted((folder / "records/coins").iterdir())
    shutil.copytree(one, one.with_name("extra"))


def deleted(folder: Path) -> None:
    shutil.rmtree(sorted((folder / "records/coins").iterdir())[0])


def linked(folder: Path) -> None:
    path = sorted(folder.glob("records/coins/*/flips.parquet"))[0]
    path.unlink()
    path.symlink_to("/etc/passwd")


def pickled(folder: Path) -> None:
    path = sorted(folder.glob("records/coins/*/flips.parquet"))[0]
    path.write_bytes(pickle.dumps(Bomb(str(folder / "exploded"))))
    (path.parent / "extra.pkl").write_bytes(path.read_bytes())


class Bomb:
    """What a pickle runs when it is loaded."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def bombs(folder: Path) -> None:
    """A page that names code of the bundle: a study, a function of the criteria, a module beside them."""
    (folder / "source/params/coins/evil.py").write_text(f"open({str(folder / 'exploded')!r}, 'w')")
    (folder / "source/params/coins/experiment.yaml").write_text("study: evil:STUDY\n")


def rules(folder: Path) -> None:
    how = lambda text: text.replace("metrics: {", "metrics: {x: {note: x, function: 'os:abort'}, ")  # noqa: E731
    change("source/params/coins/criteria.yaml", how)(folder)


def claim(key: str, value: object) -> Callable[[Path], None]:
    def how(text: str) -> str:
        content = json.loads(text)
        place = content["claims"][0]
        *path, last = key.split(".")
        for step in path:
            place = place[int(step) if isinstance(place, list) else step]
        place[last] = value
        return json.dumps(content)

    return change("claims.json", how)


def manifest(**given: object) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        mark = json.loads((folder / places.MARK).read_text())
        (folder / places.MARK).write_text(json.dumps(mark | given))

    return forge


def wide(folder: Path) -> None:
    path = sorted(folder.glob("records/coins/*/flips.parquet"))[0]
    pd.DataFrame({"heads": [True] * 1000}).to_parquet(path)


PAGE = "reports/coins.html"
FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a metric": (metric, "metrics.heads_rate.k: is"),
    "a table": (table, "files.flips.parquet: "),
    "a table with its record and ledger": (table_and_record, "metrics.heads_rate.k: is"),
    "two ids": (swapped, "names another record than"),
    "a record more": (added, "coins/extra: run.json: "),
    "a record less": (deleted, ": ledger: was published and is missing"),
    "a link": (linked, "flips.parquet': link: is a link"),
    "a pickle for a table": (pickled, "files.flips.parquet: is no table"),
    "a folder of a stranger": (lambda folder: files.write_text(folder / "records/x/y/z.txt", "z"), "x/y: ledger: "),
    "a line of the ledger": (
        change("records/ledger.jsonl", lambda text: text.replace("published", "replayed", 1)), "ledger: ",
    ),
    "the last line of the ledger": (
        change("records/ledger.jsonl", lambda text: text.rstrip("\n").rpartition("\n")[0] + "\n"), "ledger: ",
    ),
    "no ledger": (lambda folder: (folder / "records/ledger.jsonl").unlink(), "ledger: chain: is missing"),
    "the criteria": (
        change("source/params/coins/criteria.yaml", lambda text: text.replace("> 0.5", "> 0.4")),
        "criteria.yaml: criteria: ",
    ),
    "the grid": (change("source/params/coins/grid.yaml", lambda text: text.replace("0.7, ", "")), "grid.yaml: grid: "),
    "the statement": (
        change("source/reports/coins.qmd", lambda text: text.replace("more often", "always")), "coins.qmd: statement: ",
    ),
    "a verdict in claims.json": (claim("verdict", "REFUTED"), "claims.json: coins: verdict: is 'REFUTED'"),
    "a number in claims.json": (claim("numbers.0.low", 0.99), "numbers[0].low: is 0.99"),
    "a confidence in claims.json": (claim("confidence.stated", "HIGH"), "confidence.stated: is 'HIGH'"),
    "a hash in claims.json": (claim("criteria.sha256", "0" * 64), "criteria.sha256: "),
    "a caveat left out": (claim("does_not_claim", []), "does_not_claim: is []"),
    "claims.json of another form": (claim("more", 1), "claims.0.more: "),
    "another claim": (claim("id", "dice"), "dice: is a claim of no page"),
    "no claims.json": (lambda folder: (folder / "claims.json").unlink(), "claims.json: "),
    "a number on the page": (change(PAGE, lambda text: text.replace("4 values", "x").replace("95 % CI", "99 % CI")),
                             "coins.html: heads_rate: is"),
    "a verdict on the page": (change(PAGE, lambda text: text.replace("SUPPORTED", "REFUTED")), "coins.html: header: "),
    "a second header": (
        change(PAGE, lambda text: text.replace("</main>", '<section class="cb-header"></section></main>')),
        "header: stands on the page more than once",
    ),
    "a number without its fact": (
        change(PAGE, lambda text: text.replace(' data-fact="heads_rate"', "")), "names no fact",
    ),
    "a number of other runs": (
        change(PAGE, lambda text: text.replace("2 runs: b", "2 runs: c")), "which is not in the bundle",
    ),
    "the page's source": (lambda folder: (folder / "source/reports/coins.qmd").unlink(), "qmd: source: is missing"),
    "a path out of the bundle": (
        change("source/reports/coins.qmd", lambda text: text.replace("params/coins/criteria", "../../../etc/x")),
        "which is no file of the bundle",
    ),
    "a record that is no JSON": (change("records/coins/*/run.json", lambda text: "[" * 100_000), "run.json: "),
    "a record with a path": (
        change("records/coins/*/run.json", lambda text: text.replace('"flips.parquet"', '"../flips.parquet"')),
        "run.json: ",
    ),
    "a table of another shape": (wide, "files.flips.parquet: "),
    "bytes for a page": (lambda folder: (folder / PAGE).write_bytes(b"\xff\xfe\x00"), "coins.html: header: "),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found(forged, name):
    forge, sentence = FORGERIES[name]
    forge(forged)
    assert any(sentence in one or " sha256: " in one or " files: " in one or " link: " in one for one in found(forged))
    if "link" not in name:
        sealed(forged)
    said = found(forged)
    assert any(sentence in one for one in said), said
    assert not any("Traceback" in one or "\n" in one for one in said)
    assert not (forged / "exploded").exists()


@pytest.mark.parametrize("forge", [bombs, rules])
def test_nothing_of_a_bundle_is_executed(forged, forge):
    forge(forged)
    sealed(forged)
    report = checking.verify_bundle(forged)
    assert any(one.startswith("the claim coins: ") and "installed here" in one for one in report.unchecked)
    assert report.claims == 0 and not (forged / "exploded").exists()


@pytest.mark.parametrize(
    ("forge", "sentence"),
    [
        (manifest(files={"../x": "0" * 64}), "claimbook.json: 'files.../x"),
        (manifest(files={"x": "none"}), "claimbook.json: 'files.x'"),
        (manifest(pages=["../x"]), "claimbook.json: 'pages.0'"),
        (manifest(extra=1), "claimbook.json: 'extra'"),
        (manifest(pages=["dice"]), "reports/dice.qmd: source: is missing"),
        (manifest(files={"x": "0" * 64}), "x: files: is in claimbook.json and missing"),
    ],
)  # fmt: skip
def test_a_manifest_that_lies_is_found(forged, forge, sentence):
    forge(forged)
    assert any(one.startswith(sentence) for one in found(forged)), found(forged)


def test_what_is_too_large_is_not_read(forged, monkeypatch):
    monkeypatch.setattr(checking, "MOST_CELLS", 10)
    assert sum("more than are read" in one for one in found(forged)) == 6
    monkeypatch.setattr(checking, "LARGEST_TEXT", 10)
    assert any("more than is read" in one for one in found(forged))


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_verify_of_a_folder_checks_a_bundle_or_says_that_it_is_none(made, forged, tmp_path):
    done = run("verify", str(made[2]))
    assert done.exit_code == 0 and done.output.splitlines()[-1].startswith("No findings: 6 records")
    claim("verdict", "REFUTED")(forged)
    done = run("verify", str(forged))
    assert done.exit_code == 1 and "claims.json: sha256: is not the hash" in done.output
    done = run("verify", str(tmp_path))
    assert done.exit_code == 1 and "is no bundle" in done.output and len(done.output.splitlines()) == 1
    assert "cannot be replayed" in run("verify", str(forged), "--replay").output


def test_a_host_is_asked_once_and_says_what_is_wrong(made, monkeypatch, tmp_path):
    root, site, _ = made
    monkeypatch.setattr(
        hosts.Space, "upload", lambda self, folder: f"{self.name} {places.schema_of(folder / places.MARK)}"
    )
    monkeypatch.setattr(bundle, "export", lambda out, pages, one: exported(out, pages, one, root))
    exported = bundle_export
    done = run("export", "bundle", "coins", "--site", str(site), "--out", str(tmp_path / "b"), "--to", "hf:me/coins")
    assert done.exit_code == 0 and "It is at me/coins claimbook/bundle/1" in done.output
    for to in ("hf:me", "ftp:x", "hf:me/a/b"):
        assert "is neither hf:OWNER/SPACE nor pages" in run("export", "bundle", "--to", to).output


bundle_export = bundle.export


def test_a_space_without_a_network_is_one_sentence(made, monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise OSError("no route to the host")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(Exception, match=r"^The Space me/coins could not be written \(OSError: no route"):
        hosts.Space("me/coins").upload(made[2])


def test_pages_are_pushed_to_their_branch_and_to_no_other_files(made, tmp_path):
    root, _, out = made
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(remote)], check=True)
    subprocess.run(["git", "remote", "add", "origin", str(remote)], cwd=root, check=True)
    show = ["git", "-C", str(remote), "ls-tree", "-r", "--name-only", "gh-pages"]
    try:
        for _ in range(2):
            assert "gh-pages" in hosts.Pages(root).upload(out)
            there = subprocess.run(show, capture_output=True, text=True, check=True).stdout.split()
            assert {".nojekyll", "index.html", "claimbook.json", "records/ledger.jsonl"} <= set(there)
        subprocess.run(["git", "push", "-q", "--force", "origin", "main:gh-pages"], cwd=root, check=True)
        with pytest.raises(ExportError, match="did not make"):
            hosts.Pages(root).upload(out)
    finally:
        subprocess.run(["git", "remote", "remove", "origin"], cwd=root, check=True)
    with pytest.raises(ExportError, match="git remote get-url failed"):
        hosts.Pages(root).upload(out)


def test_a_number_of_more_runs_than_its_link_names_is_compared_too(made, forged, monkeypatch):
    monkeypatch.setattr(facts, "HOVERED", 1)
    html = page_of(made[0])
    links = re.findall(r'title="([24] runs: \S+ and [13] more) [^>]*data-fact="([\w.]+)"', html)
    assert [name for _, name in links] == ["heads_rate", "heads_rate", "count.records", "params.flips"]
    (forged / PAGE).write_text(html)
    sealed(forged)
    assert found(forged) == [], "the runs that are not named are found again"
    lies = [("95 % CI", "99 % CI"), ("and 3 more", "and 4 more"), ("4 runs", "5 runs")]
    for lie, fact in zip(lies, ["heads_rate", *["count.records"] * 2], strict=True):
        assert lie[0] in html
        (forged / PAGE).write_text(html.replace(*lie))
        sealed(forged)
        assert any(f"coins.html: {fact}: is" in one for one in found(forged)), lie
