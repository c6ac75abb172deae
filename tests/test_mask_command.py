"""The command ``claimbook mask``: exit codes, what it reads and refuses, and the page it writes."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import transformers  # noqa: F401  # before the command, which would otherwise have it imported without torch
from chromium import CHROMIUM, needs_chromium
from mask_fixture import BLOCKS, OUTSIDE, PLAIN
from typer.testing import CliRunner

from helpers import cli
from helpers.base.files import DATA, ROOT
from helpers.lm import hub, mask_audit

pytestmark = pytest.mark.unit

CHAT = [{"role": "user", "content": "Hi é"}, {"role": "assistant", "content": "Yo"}]
ROWS = [{"messages": CHAT}, {"messages": [{"role": "system", "content": "Be brief."}, *CHAT, *CHAT]}]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mask_audit, "tqdm", functools.partial(mask_audit.tqdm, disable=True))
    for name, template in (("inside", BLOCKS), ("outside", OUTSIDE), ("plain", PLAIN)):
        (tmp_path / f"{name}.jinja").write_text(template)
    write(tmp_path / "rows.jsonl", ROWS)
    return tmp_path


def write(path: Path, rows: list, encoding: str = "utf-8", end: str = "\n") -> None:
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode(encoding))


def run(*arguments: str):
    return CliRunner().invoke(cli.app, ["mask", *arguments])


def lines(result) -> list[list[str]]:
    """The table, as cells by the blanks between them."""
    return [re.split(r"  +", line) for line in result.output.split("\n\n")[1].splitlines()]


def test_a_template_that_learns_to_stop_exits_with_0_and_one_that_does_not_with_1(here):
    good = run("rows.jsonl", "pocket", "--template", "inside.jinja")
    assert good.exit_code == 0, good.output
    bad = run("rows.jsonl", "pocket", "--template", "outside.jinja")
    assert bad.exit_code == 1
    assert (
        "FAULT: Under assistant, the stop token of 3 of 3 answers carries no loss, first in rows.jsonl line 1"
        in bad.output
    )
    assert run("rows.jsonl", "pocket", "--template", "outside.jinja", "--mask", "trl").exit_code == 0
    assert run("rows.jsonl", "pocket", "--template", "outside.jinja", "--allow", "1").exit_code == 0
    assert run("rows.jsonl", "pocket", "--mask", "newline").exit_code == 1
    assert run("rows.jsonl", "pocket", "--mask", "2").exit_code == 0


def test_the_table_counts_by_role(here):
    result = run("rows.jsonl", "pocket", "--template", "inside.jinja")
    head, *rest = lines(result)
    assert head == [
        "tokens with loss",
        "system",
        "user",
        "assistant",
        "stop token",
        "template",
        "total",
        "stops learnt",
    ]
    table = {name: dict(zip(head[1:], cells, strict=True)) for name, *cells in rest}
    assert list(table) == ["in the data", "assistant", "all", "trl", "newline", "end_of_turn", "whole_turn"]
    assert table["assistant"]["system"] == table["assistant"]["user"] == table["assistant"]["template"] == "0"
    assert (
        table["assistant"]["stop token"]
        == table["assistant"]["stops learnt"]
        == table["in the data"]["stop token"]
        == "3"
    )
    assert table["assistant"]["assistant"] == table["in the data"]["assistant"]
    assert result.output.splitlines()[:2] == [
        "rows.jsonl with pocket", "2 rows, 3 answers, cut at 1,024; generation stops at <|im_end|>"
    ]  # fmt: skip


def test_rows_are_cut_where_one_says_or_nowhere(here):
    write(here / "long.jsonl", [{"messages": [CHAT[0], {"role": "assistant", "content": "yo " * 2000}]}])
    cut = run("long.jsonl", "pocket")
    assert cut.exit_code == 1 and "(1 are cut off at 1,024)" in cut.output
    whole = run("long.jsonl", "pocket", "--max-length", "0")
    assert whole.exit_code == 0 and "Packed" not in whole.output
    assert run("rows.jsonl", "pocket", "--rows", "1").output.splitlines()[1].startswith("1 rows, 1 answers")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_text_that_names_its_encoding_is_read_whatever_its_line_ends(here, encoding, end):
    expected = run("rows.jsonl", "pocket").output
    write(here / "rows.jsonl", ROWS, encoding, end)
    assert run("rows.jsonl", "pocket", "--html", "other.html").output == expected.replace("mask.html", "other.html")


BAD = {
    "latin-1": (json.dumps(ROWS[0], ensure_ascii=False).encode("latin-1"),
                r"bad\.jsonl is not UTF-8: byte \d+, in line 1"),
    "utf-16-le": (json.dumps(ROWS[0]).encode("utf-16-le"), r"bad\.jsonl is not UTF-8"),
    "cut utf-16": (json.dumps(ROWS[0]).encode("utf-16")[:-1], r"bad\.jsonl is not UTF-8"),
    "empty": (b"", r"bad\.jsonl is empty"),
    "blank": (b"\n \n", r"bad\.jsonl is empty"),
    "text": (b"Once upon a time", r"Line 1 of bad\.jsonl is no JSON"),
    "cut": (b'{"messages": [', r"Line 1 of bad\.jsonl is no JSON"),
    "deep": (b'{"messages": ' + b"[" * 100_000, r"Line 1 of bad\.jsonl is no JSON"),
    "array": (json.dumps(ROWS).encode(), r"bad\.jsonl line 1 is no JSON object"),
    "number": (b"7", r"bad\.jsonl line 1 is no JSON object"),
    "no messages": (b'{"text": "Hi"}', r"bad\.jsonl line 1 has no messages \(its keys: 'text'\)"),
    "no keys": (b"{}", r"bad\.jsonl line 1 has no messages \(its keys: none\)"),
    "null": (b'{"messages": null}', r"bad\.jsonl line 1 has no messages"),
    "no message": (b'{"messages": []}', r"bad\.jsonl line 1 has an empty messages"),
    "string": (b'{"messages": "Hi"}', r"messages of bad\.jsonl line 1 is 'Hi'"),
    "plain prompt": (b'{"prompt": "Hi", "completion": "Yo"}', r"prompt of bad\.jsonl line 1 is 'Hi'"),
    "no completion": (json.dumps({"prompt": CHAT[:1], "completion": []}).encode(), r"line 1 has an empty completion"),
    "message": (b'{"messages": ["Hi"]}', r"message 1 of messages of bad\.jsonl line 1 is 'Hi', not an object"),
    "no role": (b'{"messages": [{"content": "Hi"}]}', r"message 1 of messages of bad\.jsonl line 1 has no role"),
    "role": (b'{"messages": [{"role": 1, "content": "Hi"}]}', r"message 1 of messages .* line 1 has no role"),
    "no content": (b'{"messages": [{"role": "user"}]}', r"message 1 .* has neither content nor tool_calls"),
    "content": (b'{"messages": [{"role": "user", "content": 3}]}', r"message 1 .* has the content 3"),
    "parts": (b'{"messages": [{"role": "user", "content": ["Hi"]}]}', r"message 1 .* has the content \['Hi'\]"),
    "mixed": (json.dumps(ROWS[0]).encode() + b"\n" + json.dumps({"prompt": CHAT[:1], "completion": CHAT[1:]}).encode(),
              r"bad\.jsonl line 2 holds prompt and completion, the rows before it messages"),
    "surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', r"bad\.jsonl line 1 is refused by"),
    "tools": (json.dumps(ROWS[0] | {"tools": "{"}).encode(), r"tools of bad\.jsonl line 1 is a string"),
    "options": (json.dumps(ROWS[0] | {"chat_template_kwargs": 3}).encode(), r"chat_template_kwargs of .* is 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(here, case):
    content, sentence = BAD[case]
    (here / "bad.jsonl").write_bytes(content)
    result = run("bad.jsonl", "pocket")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and result.stderr.startswith("claimbook: ")
    assert re.search(sentence, result.stderr), result.stderr
    assert not (here / "mask.html").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.jsonl", "pocket"], "There is no file or folder none.jsonl"),
        (["rows.jsonl", "nobody"], "There is no model 'nobody'"),
        (["rows.jsonl", "empty"], "empty has no tokenizer.json"),
        (["rows.jsonl", "broken"], "The tokenizer in broken cannot be loaded"),
        (["rows.jsonl", "bare"], "has no chat template. Give one as --template"),
        (["rows.jsonl", "pocket", "--template", "none.jinja"], "There is no template file none.jinja"),
        (["rows.jsonl", "pocket", "--mask", "assistent"], "There is no mask 'assistent'; did you mean 'assistant'?"),
        (["rows.jsonl", "pocket", "--mask", "0"], "There is no mask '0'"),
        (["empty", "pocket"], "empty has no .jsonl or .parquet file named 'train'"),
        (["cut.parquet", "pocket"], "cut.parquet is no whole Parquet file"),
    ],
)
def test_what_is_not_there_or_damaged_is_one_sentence(here, arguments, sentence):
    for name in ("empty", "broken", "bare"):
        (here / name).mkdir()
    (here / "broken/tokenizer.json").write_text("{")
    shutil.copy(DATA / "pocket/tokenizer.json", here / "bare")
    (here / "cut.parquet").write_bytes(b"PAR1")
    result = run(*arguments)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1 and sentence in result.stderr, result.stderr


def test_a_folder_with_a_tokenizer_alone_is_enough(here):
    (here / "alone").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "pocket" / name, here / "alone")
    assert run("rows.jsonl", "alone").output.splitlines()[1:] == run("rows.jsonl", "pocket").output.splitlines()[1:]


def test_the_stop_tokens_of_the_generation_config_count_too(here):
    shutil.copytree(DATA / "pocket", here / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((here / "model/generation_config.json").read_text())
    (here / "model/tokenizer_config.json").write_text(
        (here / "model/tokenizer_config.json")
        .read_text()
        .replace('"eos_token": "<|im_end|>"', '"eos_token": "<|endoftext|>"')
    )
    assert run("rows.jsonl", "model").exit_code == 0 and config["eos_token_id"] is not None
    (here / "model/generation_config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    result = run("rows.jsonl", "model")
    assert (
        result.exit_code == 1 and "are followed by <|im_end|>. Generation stops at <|endoftext|> only." in result.output
    )


def test_other_shapes_of_rows_are_read(here):
    expected = run("rows.jsonl", "pocket").output.splitlines()[1:]
    shared = [{"conversations": [{"from": m["role"], "value": m["content"]} for m in row["messages"]]} for row in ROWS]
    write(here / "shared.jsonl", shared)
    assert run("shared.jsonl", "pocket").output.splitlines()[1].startswith("2 rows, 3 answers")
    pd.DataFrame(ROWS).to_parquet(here / "rows.parquet")
    assert run("rows.parquet", "pocket").output.splitlines()[1:] == expected
    write(here / "prompts.jsonl", [{"prompt": CHAT[:1], "completion": CHAT[1:], "tools": "[]"}])
    assert run("prompts.jsonl", "pocket").exit_code == 0
    write(here / "gpt.jsonl", [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}])
    result = run("gpt.jsonl", "pocket")
    assert result.exit_code == 1 and "No message has the role assistant (roles: human, gpt)" in result.output


def test_rows_that_the_template_refuses_are_counted_and_fatal(here):
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
    (here / "strict.jinja").write_text(template)
    result = run("rows.jsonl", "pocket", "--template", "strict.jinja")
    assert (
        result.exit_code == 1 and "1 of 2 rows are refused, and training ends there. rows.jsonl line 2" in result.output
    )


class Hub:
    """A hub with one model and one data set."""

    def __init__(self, root: Path, files: dict[str, list]) -> None:
        self.root, self.files, self.asked = root, files, []

    def __call__(self, repo: str, *, repo_type: str, revision: str | None, allow_patterns, ignore_patterns) -> str:
        self.asked.append((repo, repo_type, revision, tuple(allow_patterns)))
        folder = self.root / repo_type / (revision or "newest")
        if repo_type == "model":
            shutil.copytree(DATA / "pocket", folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
            return str(folder)
        assert ignore_patterns is None, "files lie in folders"
        for name, rows in self.files.items():
            if any(Path(name).match(pattern) for pattern in allow_patterns):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                write(folder / name, rows) if name.endswith("jsonl") else pd.DataFrame(rows).to_parquet(folder / name)
        return str(folder)


@pytest.fixture
def there(here, monkeypatch):
    made = Hub(
        here / "hub", {"data/train-0.parquet": ROWS[:1], "data/train-1.parquet": ROWS[1:], "data/test.jsonl": ROWS}
    )
    monkeypatch.setattr(hub, "snapshot_download", made)
    hub.snapshot.cache_clear()
    yield made
    hub.snapshot.cache_clear()


def test_data_and_tokenizer_of_a_hub_are_read_without_weights(there):
    result = run("somebody/chats@v2", "somebody/model@v1")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[1].startswith("2 rows, 3 answers")
    (data, kind, revision, _), (model, _, model_revision, patterns) = there.asked
    assert (data, kind, revision) == ("somebody/chats", "dataset", "v2")
    assert (model, model_revision) == ("somebody/model", "v1") and not any("safetensors" in one for one in patterns)


def test_a_split_that_is_not_there_or_in_several_folders_is_one_sentence(there):
    assert "no .jsonl or .parquet file named 'dev'" in run("somebody/chats", "pocket", "--split", "dev").stderr
    hub.snapshot.cache_clear()
    there.files = {"one/train.jsonl": ROWS, "two/train.jsonl": ROWS}
    refused = run("somebody/sets", "pocket")
    assert "holds 'train' in one, two. Name one, such as --split one/train" in refused.stderr
    hub.snapshot.cache_clear()
    assert run("somebody/sets", "pocket", "--split", "two/train").exit_code == 0


def test_the_page_shows_ten_rows_with_every_token_once(here):
    hostile = '<script>alert("x")</script>'
    write(
        here / "many.jsonl", [{"messages": [{"role": "user", "content": f"{hostile} {n}"}, CHAT[1]]} for n in range(30)]
    )
    run("many.jsonl", "pocket")
    page = (here / "mask.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 10 and hostile not in page and "<script" not in page
    first = re.search(r"<pre>(.*?)</pre>", page, re.S)[1]
    shown = (
        re.sub(r"<[^>]+>", "", first)
        .replace("↵\n", "\n")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&#34;", '"')
    )
    assert shown == f"<|im_start|>user\n{hostile} 0<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n"
    assert len(re.findall(r'class="k-other stop', first)) == 1


def test_rows_with_a_stop_token_without_loss_come_first(here):
    long = {"messages": [CHAT[0], {"role": "assistant", "content": "yo " * 2000}]}
    write(here / "many.jsonl", [*ROWS * 10, long])
    run("many.jsonl", "pocket")
    page = (here / "mask.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2><bdi>(.*?)</bdi>", page)[:2] == ["many.jsonl line 21", "many.jsonl line 1"]
    assert "more tokens" in page


def test_the_command_starts_without_torch(here):
    code = (
        "import sys\nfrom helpers.cli import app\n"
        "try:\n    app(['mask', 'rows.jsonl', 'pocket'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert sys.modules['torch'] is None, 'torch was imported'"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "PyTorch" not in done.stderr, done.stderr
    assert done.stdout == run("rows.jsonl", "pocket").output


@pytest.mark.check
@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_colours_the_mask_that_is_picked(here, width, scheme):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    write(here / "wide.jsonl", [{"messages": [CHAT[0] | {"content": "x" * 900}, CHAT[1]]}, *ROWS])
    run("wide.jsonl", "pocket", "--template", "outside.jinja")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: None if request.url.startswith("file:") else pytest.fail(request.url))
        page.goto((here / "mask.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        colour = "element => getComputedStyle(element).backgroundColor"
        user, answer = page.locator("pre .k-user").first, page.locator("pre .k-assistant").first
        clear = "rgba(0, 0, 0, 0)"
        assert user.evaluate(colour) == clear != answer.evaluate(colour)
        stop = page.locator("pre .stop").first
        framed = stop.evaluate("element => getComputedStyle(element).outlineColor")
        page.get_by_text("trl", exact=True).last.click()
        assert user.evaluate(colour) == answer.evaluate(colour) != clear
        assert stop.evaluate("element => getComputedStyle(element).outlineColor") != framed
        browser.close()
