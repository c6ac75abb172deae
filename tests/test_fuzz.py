"""Any bytes where a file is read, and any accident while a sweep runs: a typed error of one sentence, or the answer.

    make fuzz EXAMPLES=10000

tries so many of each and prints what came of them; `make test` tries as many as take seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter

import pytest
import yaml
from claims_records import record
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from sweep_toy import ToyCell
from toy_study import CRITERIA, PAGE
from typer.testing import CliRunner

from helpers import cli
from helpers.base import files, params
from helpers.base.errors import ClaimbookError
from helpers.cases.case import runs_of
from helpers.cases.claim import has_claim, read_claim
from helpers.claims.criteria import read_criteria
from helpers.records import ledger, reading
from helpers.records.study import find_study, own_cells
from helpers.site import samples
from helpers.site.linting.cells import read_code
from helpers.site.linting.prose import read_page
from helpers.site.run_list import details
from helpers.studies.marker.params import SweepCell

pytestmark = pytest.mark.unit

MANY = int(os.environ.get("CLAIMBOOK_FUZZ", "0"))
SECONDS = 20
"""CPU seconds that one example may take before it counts as a hang, however busy the machine is."""
fuzz = settings(
    max_examples=MANY or 60, derandomize=not MANY, deadline=None, database=None, print_blob=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture
def counts(capsys):
    counted = Counter[str]()
    yield counted
    if MANY:
        with capsys.disabled():
            print(f"\n{sum(counted.values())} examples: {dict(counted.most_common())}")


@contextlib.contextmanager
def typed(counted: Counter[str]):
    """Let pass what ends well or with a typed error of one sentence that can be printed, in time."""

    def hang(*_):
        raise AssertionError(f"hangs: nothing came of it in {SECONDS} CPU seconds")

    before = signal.signal(signal.SIGPROF, hang)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
        counted["accepted"] += 1
    except ClaimbookError as error:
        str(error).encode()
        assert len(str(error)) < 5_000 and str(error).strip()
        counted[type(error).__name__] += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# Values and texts near the ones that are read.
texts = st.text(st.characters(exclude_categories=()), max_size=12)
words = st.sampled_from([
    "lr", "seed", "blocks", "all", "otherwise", "a_rate > 0.5", "heads_rate", "x" * 5000, "../../x", "/dev/null", "~",
    "~nobody/x", "\0", "\ud800", "1e999", "12:30:45", "2026-01-31", "[1, 2]", "[*a]", "{x}", "}", "%s", "#65", "e\u0301"
])  # fmt: skip
numbers = st.sampled_from([0, -1, 1, 2**31, 2**63, 10**400, 0.1, -0.0, 1e308, float("inf"), float("nan")])
leaves = st.none() | st.booleans() | numbers | words | texts
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | texts | numbers, inner, max_size=3),
    max_leaves=6,
)
ODD = [
    "!!int ''", "!!int x", "!!bool x", "!!float ''", "!!map [a]", "!!map x", "!!seq {a: 1}", "!!str [a]", "!!null [a]",
    "!!timestamp 2026-01-31", "!!binary x", "!!set {a}", "!!python/object:os.system x", "! x", "&a [*a]", "*a",
    "&a {b: *a}",
    "? [a]\n: b", "? {a: b}\n: c", "{? : }", "{~: 1}", "{.nan: 1, .nan: 2}", ".inf", "-.inf", ".nan", "1e999", "-1e999",
    "0x" + "f" * 5000, "9" * 5000, "0o17", "1_000", "1:2:3", "2026-01-31", "2026-01-31T10:00:00Z", '"\\0"', '"\\ud800"',
    '"\\x07"', "[" * 3000, "[" * 90 + "]" * 90, "{a: " * 500, "'", '"', "|", ">", "@", "`", "%YAML 9.9", "---", "...",
    "--- a\n--- b", "\t", "\x00", "\x07", "\x85", "\ufeff", "<<: {a: 1}", "=: 1", "a: b: c", "- - - x", "{a: 1, a: 2}",
    f"{{a: &a [{'x,' * 300}], b: [{'*a,' * 300}]}}",
]  # fmt: skip


@st.composite
def near(draw, valid: str) -> bytes:
    """A YAML document near ``valid``: some of its values replaced, its lines cut, repeated or made odd."""
    content = yaml.safe_load(valid)
    for _ in range(draw(st.integers(0, 2))):
        _replace(draw, content)
    text = valid if draw(st.booleans()) else yaml.safe_dump(content, allow_unicode=draw(st.booleans()))
    lines = text.splitlines()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, max(0, len(lines) - 1)))
        line = lines[at] if lines else ""
        head = line.partition(":")[0]
        odd = draw(st.sampled_from(ODD))
        twice = [line, f"{head}: {odd}"]
        lines[at : at + 1] = draw(st.sampled_from([[], [line, line], [f"{head}: {odd}"], [odd], twice]))
    encoding = draw(st.sampled_from(["utf-8"] * 6 + ["utf-16", "latin-1", "utf-32-le"]))
    return "\n".join([*lines, ""]).encode(encoding, "surrogatepass" if "utf" in encoding else "replace")


def _replace(draw, content) -> None:
    """Put any value in the place of some part of ``content``, or beside it."""
    while isinstance(content, dict | list) and content:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = draw(st.sampled_from(list(keys)))
        if not isinstance(content[key], dict | list) or not content[key] or draw(st.integers(0, 2)) == 0:
            break
        content = content[key]
    else:
        return
    if isinstance(content, dict) and draw(st.booleans()):
        key = draw(words | texts)
    content[key] = draw(values)


raw = st.binary(max_size=200) | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
GRID = """\
model: pocket
lr: [1e-4, 1e-3]
epochs: [1, 3]
seed: [0, 1]
negatives: two
blocks:
  - {tail: newline}
  - {tail: 2}
"""
FRONT = PAGE.split("---\n")[1]
RECORD = json.dumps(record({"lr": 0.1}, name="run", notebook="sweep").content)


@fuzz
@given(near(GRID) | raw)
def params_file(counted, folder, content):
    path = folder / "grid.yaml"
    path.write_bytes(content)
    with typed(counted):
        grid = params.load(SweepCell, path)
        json.dumps([grid.values, grid.given], allow_nan=False)
        [one.key for one in runs_of(find_study("sweep"), grid)]


@fuzz
@given(near(CRITERIA) | raw)
@example(
    CRITERIA.replace("controls: {heads: ", "controls: ").replace("}, note: Coins have two sides.}}", "}}").encode()
)
@example(f"{CRITERIA}\n{'x' * 5_000}: 1\n".encode())
def criteria_file(counted, folder, content):
    path = folder / "criteria.yaml"
    path.write_bytes(content)
    with typed(counted):
        read_criteria(path)


@fuzz
@given(near(FRONT).map(lambda text: b"---\n" + text + b"---\nProse.\n\n```{python}\nx = 1\n```\n") | raw)
def page_file(counted, folder, content):
    path = folder / "reports/coins.qmd"
    path.write_bytes(content)
    with typed(counted):
        samples.addresses(path)
        read_code(read_page(path), path.name)
        if has_claim(path):
            read_claim(path, folder)


@fuzz
@given(near(RECORD) | near(RECORD).map(lambda text: _json_of(text)) | raw)
def record_file(counted, folder, content):
    path = folder / "outputs/sweep/run/run.json"
    path.write_bytes(content)
    with typed(counted):
        found = reading.read(path.parent)
        details(found)
        reading.table("sweep")


LINE = {"event": "published", "at": "2026-11-30T12:00:00+00:00", "kind": "record", "name": "sweep/run"}
LINE |= {"sha256": "0" * 64, "before": []}


@fuzz
@given(near(json.dumps(LINE)).map(lambda text: _json_of(text)) | raw)
@example(json.dumps(LINE | {"x" * 5_000: 1}, separators=(",", ":")).encode())
def ledger_file(counted, folder, content):
    path = folder / "published/ledger.jsonl"
    path.write_bytes(content.strip() + b"\n")
    with typed(counted):
        ledger.read()


def _json_of(text: bytes) -> bytes:
    with contextlib.suppress(Exception):
        return json.dumps(yaml.safe_load(text), default=str, separators=(",", ":")).encode()
    return text


@fuzz
@given(values | st.lists(st.just(ToyCell()) | st.just(SweepCell()) | values, max_size=3) | st.just(SweepCell()))
def cells_given(counted, folder, cells):
    with typed(counted):
        own_cells(ToyCell, cells)


COMMANDS = (
    "sweep", "site", "publish", "register", "derive", "withdraw", "verify", "challenge", "plan", "status", "next"
)  # fmt: skip
options = st.sampled_from(["--", "--where", "a=b", "--reason", "reports", "params/coins/grid.yaml"])
arguments = (words | texts | options).filter(lambda text: "\0" not in text)  # no system hands one over


@fuzz
@given(st.sampled_from(COMMANDS), st.lists(arguments, min_size=1, max_size=3))
@example("verify", ["x" * 5_000])
def command_line(counted, folder, command, given):
    with typed(counted):
        done = CliRunner().invoke(cli.app, [command, *given])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code in (0, 1, 2)
        if done.exit_code:
            assert any(said in done.stderr for said in ("claimbook: ", "Error", " findings"))
            raise ClaimbookError("refused")


PROPERTIES = (params_file, criteria_file, page_file, record_file, ledger_file, cells_given, command_line)


@pytest.mark.parametrize("what", PROPERTIES, ids=lambda what: what.__name__)
def test_any_bytes_are_read_or_refused_in_one_sentence(what, tmp_path, counts, monkeypatch):
    for name in ("reports", "outputs/sweep/run", "params/coins", "published"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "params/coins/criteria.yaml").write_text(CRITERIA)
    (tmp_path / "params/coins/grid.yaml").write_text("bias: [0.7]\n")
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setattr(files, "CLOCK_NS", 0)
    what(counts, tmp_path)
    assert counts["accepted"] or what is command_line, "nothing near a valid file was accepted"
    assert sum(counts.values()) > counts["accepted"], "nothing was refused"
