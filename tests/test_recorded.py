"""Any command as a record: what it leaves, how it fails, and what is refused in one sentence."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import claims_records
import pytest
from typer.testing import CliRunner

from helpers.audit import verify as verifying
from helpers.base.errors import ClaimbookError, ParameterError
from helpers.cases.case import open_case
from helpers.claims.confidence import is_measured
from helpers.cli import app
from helpers.records import reading
from helpers.site import from_import, listing
from helpers.site.from_import import Comparison
from helpers.site.reading import text_of
from helpers.site.status import page_status
from helpers.studies.recorded import kept, recording, running
from helpers.studies.recorded.recording import Asked
from helpers.studies.recorded.secrets import is_secret, variables, without_secrets
from helpers.studies.recorded.study import STUDY

pytestmark = pytest.mark.unit
PYTHON = sys.executable
WRITES = "import json; json.dump({'loss': 0.25, 'steps': 3}, open('m.json', 'w')); print('done')"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, in which commands run."""
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recorded(project: Path, code: str, **asked):
    return recording.record(Asked((PYTHON, "-c", code), **asked), project)


def status_of(name: str = "commands") -> list[str]:
    return [record.status for record in reading.records(name, status=None)]


def test_a_record_holds_what_the_command_did(project, capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (project / "out").mkdir()
    code = f"{WRITES}; open('out/a.json', 'w').write('[]'); open('out/b.csv', 'w').write('x'); import sys; "
    code += "print('half\\r\\x1b[31mwhole', file=sys.stderr)"
    made = recorded(project, code, keep=("out/*",), metrics="m.json", label="toy")
    said = made.results["command"]
    assert made.ref.startswith("commands/toy-1-") and made.cell == {"label": "toy", "run": 1}
    assert sorted(said["output"]) == ["done", "whole"] and said["status"] == 0
    assert said["variables"]["OMP_NUM_THREADS"] == "1" and "PATH" not in said["variables"]
    assert {name for name in made.files if "/" in name} == {"kept/out/a.json", "kept/out/b.csv"}
    loss = made.metrics["loss"]
    assert (loss["value"], loss["measured"], loss["low"], made.metrics["steps"]["value"]) == (0.25, True, None, 3)
    assert made.launch.startswith("claimbook record --name commands --label toy --keep 'out/*' --metrics m.json -- ")
    assert "done" in capfd.readouterr().out  # what the command says is passed on


def test_lines_of_two_streams_are_not_written_into_each_other(project):
    code = "import os, time; os.write(2, b'whole'); time.sleep(.1); os.write(1, b'done\\n'); time.sleep(.1); "
    code += "os.write(2, b' line\\n'); os.write(1, b'no end')"
    assert recorded(project, code).results["command"]["output"] == ["done", "whole line", "no end"]


@pytest.mark.parametrize("label", ["../up", "a/b", ".hidden", "x" * 81])
def test_a_label_that_is_a_path_is_refused_before_anything_runs(project, label):
    with pytest.raises(ParameterError, match=r"label.*must match pattern"):
        recorded(project, "open('ran', 'w')", label=label)
    assert not (project / "ran").exists() and not (project / "params").exists()


def test_each_run_of_a_label_is_a_record_of_its_own(project):
    first, second = (recorded(project, "pass", label="toy") for _ in range(2))
    assert [one.cell["run"] for one in (first, second)] == [1, 2] and first.id != second.id
    with pytest.raises(ClaimbookError, match="is that of another command"):
        recorded(project, "print()", label="toy")


def test_a_script_of_the_project_is_part_of_the_question(project):
    script = project / "train.py"
    script.write_text("print('one')")
    first = recording.record(Asked((PYTHON, "train.py", "--out=m.json")), project)
    assert list(first.data) and first.cell["label"] == "train"
    script.write_text("print('two')")
    assert recording.record(Asked((PYTHON, "train.py", "--out=m.json")), project).data != first.data


def test_a_failing_command_leaves_a_failed_run_and_its_status(project):
    for _ in range(2):
        with pytest.raises(running.CommandError, match=r"exit status 3\. Its last line: no luck") as caught:
            recorded(project, "import sys; print('no luck'); sys.exit(3)", label="toy")
        assert caught.value.status == 3 and status_of() == ["failed"]


def test_what_is_not_there_at_the_end_can_be_corrected_without_a_second_run(project):
    code = f"{WRITES}; open('count.txt', 'a').write('x')"
    for wrong, sentence in (({"keep": ("no*.txt",)}, "matches no file"), ({"metrics": "n.json"}, "was not written")):
        with pytest.raises(ClaimbookError, match=sentence):
            recorded(project, code, label="toy", **wrong)
        assert status_of() == ["failed"]
    made = recorded(project, code, label="toy", keep=("count.txt",), metrics="m.json")
    assert made.status == "complete" and (project / "count.txt").read_text() == "x"


def test_what_was_changed_after_the_command_is_not_its_own(project):
    with pytest.raises(ClaimbookError, match="matches no file"):
        recorded(project, WRITES, label="toy", keep=("no*.txt",), metrics="m.json")
    later = time.time() + 60
    (project / "m.json").write_text('{"loss": 0}')
    os.utime("m.json", (later, later))
    with pytest.raises(ClaimbookError, match=r"m\.json was changed after the command had ended"):
        recorded(project, WRITES, label="toy", metrics="m.json")


def test_metrics_of_an_earlier_run_are_not_those_of_this_one(project):
    (project / "m.json").write_text('{"loss": 0}')
    with pytest.raises(ClaimbookError, match="is older than the command, which did not write it"):
        recorded(project, "pass", metrics="m.json")
    os.utime("m.json", (1, 1))
    with pytest.raises(
        ClaimbookError, match="is older than the command"
    ):  # again, the command is not run a second time
        recorded(project, "pass", metrics="m.json")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": NaN}', "'a' as nan, which is not finite"), ('{"a": 1e999}', "'a' as inf, which is not finite"),
        ('{"a": -Infinity}', "not finite"), (f'{{"a": {10**30}}}', "not finite"), ('{"a": "1"}', "which is no number"),
        ('{"a": true}', "no number"), ('{"a": null}', "no number"), ('{"a": {"b": 1}}', "nested"),
        ('{"a": [1]}', "nested"), ('{"a": 1, "a": 2}', "'a' twice"), ("[1]", "no names"), ("{}", "no names"),
        ("3", "no names"), ("{", "is no JSON"), ('{"a/b": 1}', "Call it 'a_b'"), ('{"": 1}', "Call it 'metric'"),
        ("[" * 100_000, "is no JSON"), ("", "is no JSON"), ('{"a": ' + "9" * 400 + "}", "not finite"),
        (json.dumps({f"m{at}": 0.5 for at in range(20_000)}), "20,000 names, and a record holds 1,000 metrics"),
    ],
)  # fmt: skip
def test_metrics_that_are_none_are_refused_in_one_sentence(tmp_path, text, sentence):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ClaimbookError, match=sentence) as caught:
        kept.metrics(tmp_path / "m.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("pattern", ["../*.json", "/etc/*", "out/../../x", "~/x", ""])
def test_patterns_out_of_the_folder_are_refused_before_anything_runs(project, pattern):
    for asked in ({"keep": (pattern,)}, {"metrics": pattern} if pattern else {"keep": ("",)}):
        with pytest.raises(ClaimbookError, match="leads out of this folder"):
            recorded(project, "open('ran', 'w')", **asked)
    assert not (project / "ran").exists() and not (project / "params").exists()


def test_files_that_no_record_holds_are_refused(project, monkeypatch):
    (project / "here").mkdir()
    (project / "here/model.pt").write_text("x")
    (project / "here/link.json").symlink_to("/etc/hostname")
    (project / "here/a.txt").write_text("xxxx")
    for pattern, sentence in (("here/*.pt", "a record holds"), ("here/*.json", "link out of this folder")):
        with pytest.raises(ClaimbookError, match=sentence):
            kept.matches((pattern,), project)
    monkeypatch.setattr(kept, "MOST_BYTES", 3)
    with pytest.raises(ClaimbookError, match=r"1 files of 0 MiB, and a record holds .* Name fewer"):
        kept.matches(("here/*.txt",), project)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--", "no-such-program"], "'no-such-program' is no program that can be run"),
        (["--name", "../x", "--", "true"], "cannot name a study"),
        (["--env", "HF_TOKEN", "--", "true"], "names a secret"),
        (["--env", "NOT_SET_HERE", "--", "true"], "is not set"),
    ],
)  # fmt: skip
def test_the_command_refuses_in_one_sentence_and_leaves_nothing(project, words, sentence):
    done = CliRunner().invoke(app, ["record", *words])
    assert done.exit_code == 1 and sentence in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (project / "outputs").exists()


def test_secrets_are_not_recorded(project, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "swordfish-9")
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnopqrst")
    code = "import os; print(os.environ['MY_API_KEY'], 'Authorization: Bearer abcdefgh12345', os.environ['HF_TOKEN'])"
    command = (
        PYTHON,
        "-c",
        code,
        "--token",
        "plain-words",
        "password=opensesame",
        "https://me:pass@host/x",
        "swordfish-9",
    )
    made = recording.record(Asked(command, label="toy"), project)
    text = (
        "".join(path.read_text() for path in made.path.rglob("*.json"))
        + (project / "params/commands/commands.yaml").read_text()
    )
    for secret in ("swordfish", "hf_abc", "abcdefgh12345", "plain-words", "opensesame", "me:pass"):
        assert secret not in text
    assert "REDACTED" in text and made.status == "complete"


def measured(project, label: str, *values: float) -> None:
    for value in values:
        code = f"import json, random; json.dump({{'loss': float(open('value').read())}}, open('m.json', 'w')) # {label}"
        (project / "value").write_text(str(value))
        recorded(project, code, metrics="m.json", label=label)


@pytest.mark.parametrize(
    ("claimed", "word"),
    [
        (Comparison("loss", 0.5, False), "SUPPORTED"), (Comparison("loss", 0.3, False), "REFUTED"),
        (Comparison("loss", 0.22, False, "a"), "UNDECIDED"), (Comparison("loss", 0.1, a="b", b="a"), "SUPPORTED"),
        (Comparison("loss", 0.1, a="a", b="b"), "REFUTED"), (Comparison("loss", 0.5, False, "once"), "UNDECIDED"),
    ],
)  # fmt: skip
def test_a_claim_on_measured_numbers_is_judged_by_its_runs_and_never_above_low(project, claimed, word):
    measured(project, "a", 0.2, 0.25)
    measured(project, "b", 0.4, 0.45)
    if claimed.a == "once":
        measured(project, "once", 0.2)
    (project / "reports").mkdir()
    [_, page] = from_import.create("a-claim", "commands", claimed, project)
    case = open_case(page, project)
    sure = case.confidence()
    assert case.verdict().word == word and sure.stated == "LOW"
    assert (sure.rows[0].name, sure.rows[0].allows) == ("measured numbers", "LOW")
    assert sure.binding.startswith("LOW because of measured numbers: the numbers of ") and "measured" in sure.binding
    said = " ".join(listing.summary([], [page_status(case)]))
    assert "records are measured, so nothing can derive them again" in said
    assert "nothing can derive again what was only measured" in " ".join(" ".join(text_of("a-claim", project)).split())


def test_numbers_that_follow_from_tables_have_no_such_line():
    cell, judged = {"lr": 1, "seed": 0}, {"rate"}
    assert not is_measured(
        claims_records.record(cell, {"rate": {"value": 1}, "s": {"value": 1, "measured": True}}), judged
    )
    assert is_measured(claims_records.record(cell, {"rate": {"value": 1, "measured": True}, "k": {"value": 1}}), judged)
    assert is_measured(claims_records.record(cell, {"s": {"value": 1, "measured": True}}), judged)
    assert not is_measured(claims_records.record(cell), judged)


def test_verify_passes_a_record_and_says_that_its_numbers_are_measured(project, monkeypatch):
    made = recorded(project, WRITES, metrics="m.json", label="toy")
    monkeypatch.setattr(verifying, "find_study", lambda name: STUDY)
    done = CliRunner().invoke(app, ["verify", made.ref])
    assert done.exit_code == 0 and f"measured: {made.ref}: nothing can derive their numbers again." in done.stdout
    (made.path / "command.json").write_text("{}")
    assert CliRunner().invoke(app, ["verify", made.ref]).exit_code == 1


def test_what_is_recorded_of_the_environment_is_named(monkeypatch):
    assert variables({"LANG": "C", "HOME": "/root", "EXTRA": "1"}, ["EXTRA"]) == {"EXTRA": "1", "LANG": "C"}
    assert all(
        map(is_secret, ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "DB_PASSWD", "GOOGLE_CREDENTIALS"))
    )
    assert without_secrets("short ab", {"X_TOKEN": "ab"}) == "short ab"  # two letters stand in any text


def test_signals_reach_the_command_and_end_in_a_failed_run(project):
    code = f"""
import sys; from pathlib import Path
from helpers.studies.recorded.recording import Asked, record
from helpers.studies.recorded.running import CommandError
try: record(Asked(({PYTHON!r}, "-c", "import time; print('up', flush=True); time.sleep(60)"), label="toy"), Path.cwd())
except CommandError as error: print(error); sys.exit(error.status)
"""
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        child = subprocess.Popen([PYTHON, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "up\n"
        child.send_signal(number)
        rest, _ = child.communicate(timeout=120)
        assert child.returncode == status and f"was ended by {number.name}" in rest and status_of() == ["failed"]


def test_output_that_a_background_process_holds_open_does_not_keep_us(project, monkeypatch):
    monkeypatch.setattr(running, "DRAIN", 0.2)
    began = time.monotonic()
    ended = running.run(["sh", "-c", "sleep 30 & echo $! > pid; echo gone"], dict(os.environ))
    os.kill(int(Path("pid").read_text()), signal.SIGKILL)
    assert ended.status == 0 and ended.tail == ["gone"] and time.monotonic() - began < 20


def test_only_the_end_of_a_long_output_is_kept():
    ended = running.run([PYTHON, "-c", "print('x' * 5000); [print(n) for n in range(100_000)]"], dict(os.environ))
    assert ended.tail[-1] == "99999" and len(ended.tail) == running.TAIL_LINES


def test_the_exit_status_is_passed_on(project, monkeypatch):
    monkeypatch.setattr(recording, "record", functools.partial(recording.record, root=project))
    done = CliRunner().invoke(app, ["record", "--", PYTHON, "-c", "import sys; sys.exit(7)"])
    assert done.exit_code == 7 and "ended with exit status 7" in done.stderr
