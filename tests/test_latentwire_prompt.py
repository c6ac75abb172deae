"""Worked examples and line ends of text prompts, latents of fewer bits, and both faults alone."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from latentwire_fixture import ALIGNED, TINY, params
from test_exact import model_of

from helpers.base.errors import ModelError, ParameterError
from helpers.base.files import DATA
from helpers.base.params import parse_grid
from helpers.records import runs
from helpers.studies.latentwire import cell, data, lms, prompting, wire, wiring
from helpers.studies.latentwire.arms import ARMS, NARROW, TEXT_CHANNELS
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.decode import Decoding, decode
from helpers.studies.latentwire.losses import teacher_logits
from helpers.studies.latentwire.opening import Opening
from helpers.studies.latentwire.params import WireCell
from helpers.studies.latentwire.study import STUDY

pytestmark = pytest.mark.unit

LINES = TINY | {
    "model_a": str(DATA / "pocket"), "model_b": str(DATA / "pocket"), "data": "templated_qa", "answer_end": "line",
    "text_examples": 2, "narrow": True,
}  # fmt: skip


def reader(kind: str = "llama", template: bool = True) -> lms.FrozenLM:
    tokenizer = tiny.chatml_tokenizer()
    if not template:
        tokenizer.chat_template = None
    return lms.ended_by_line(lms.reader("a", kind, model_of(kind), tokenizer))


def lines(**changes: object) -> WireCell:
    return parse_grid(WireCell, LINES | changes, "in the test")[0]


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "mistral", "qwen2"])
def test_what_is_read_once_is_read_as_if_it_stood_in_every_row(kind):
    lm = reader(kind)
    window = getattr(lm.decoder.config, "sliding_window", None)
    begun = [(7 * at) % 60 + 3 for at in range(3 * (window or 6))]  # longer than the window of those that have one
    texts, answers = [[5, 9, 11, 4], [8]], [[6, 12, 30], [14, 10]]
    opening = Opening(lm, begun)
    embedded = [lm.embed(torch.tensor([row]))[0] for row in texts]
    context = torch.nn.utils.rnn.pad_sequence(embedded, batch_first=True)
    lengths = torch.tensor([len(row) for row in texts])
    labels = ALIGNED.labels(lm, answers)
    logits = teacher_logits(lm, context, lengths, labels, opening)
    with torch.inference_mode():
        written = decode(lm, context, lengths, Decoding(4, eos_ban_steps=4), seed=0, keys="ab", opening=opening)
        for row, (text, answer) in enumerate(zip(texts, answers, strict=True)):
            whole = lm.model(input_ids=torch.tensor([[*begun, *text, *answer]])).logits[0].float()
            own = whole[len(begun) + len(text) - 1 : -1]
            torch.testing.assert_close(logits[row, : len(answer)], own, rtol=1e-4, atol=1e-4)
            alone = lm.model(input_ids=torch.tensor([[*text, *answer]])).logits[0].float()[len(text) - 1 : -1]
            assert not torch.allclose(logits[row, : len(answer)], alone, atol=1e-3)
            said: list[int] = []
            for _ in range(4):
                following = lm.model(input_ids=torch.tensor([[*begun, *text, *said]])).logits[0, -1].float()
                following[list(lm.ends)] = float("-inf")
                said.append(int(following.argmax()))
            assert written[row].tokens == said
    assert opening.repeated(2).get_seq_length() == len(begun)  # what a batch added is not kept


@pytest.mark.parametrize("mode", ["text", "chat"])
def test_worked_examples_are_tokens_of_one_text_each_with_its_answer_and_a_line_break(mode):
    lm, p = reader(), lines(anchor_mode=mode)
    policy, (first, second) = Composer.of(p), data.worked(p)
    before = policy.frame(lm, latent=False).before
    text = "".join(f"{one.text}Answer: {one.answers[0]}\n" for one in (first, second))
    opened = policy.opening(lm, [first, second])
    assert opened[: len(before)] == before and opened[len(before) :] == lm.ids(text)
    asked = [lm.embed(torch.tensor([lm.ids(first.text)]))[0]]
    whole, _ = policy.contexts(lm, asked, latent=False)
    rest, _ = policy.contexts(lm, asked, latent=False, opened=True)
    assert torch.equal(whole[:, len(before) :], rest)


def test_worked_examples_are_no_questions_of_a_run():
    p = lines(train_samples=400, eval_samples=200, text_examples=12)
    split = data.load(p, [])
    mine, others = data.worked(p), data.worked(p, "prompt", 60)
    people = {one.text.partition(" was")[0] for one in (*mine, *others)}
    held_out = {one.text.partition(" was")[0] for one in split.validation}
    assert len(mine) == 12 and len(others) == 60 and not people & held_out
    texts = [{one.text for one in some} for some in (mine, others, split.validation, split.train)]
    assert sum(map(len, texts)) == len(set.union(*texts))


def test_a_line_break_is_the_end_that_is_taught_and_any_blank_line_stops():
    lm = reader()
    assert ALIGNED.answer(lm, "at nine")[-1] == lm.end == lm.ids("\n")[0]
    blank = [t for t in range(len(lm.tokenizer)) if (s := lm.tokenizer.decode([t])) and "\n" in s and not s.strip()]
    assert set(blank) <= set(lm.ends) and lm.tokenizer.eos_token_id in lm.ends
    words = [t for t in lm.ends if lm.tokenizer.decode([t], skip_special_tokens=True).strip()]
    assert not words


def test_a_reader_that_spells_a_line_break_with_two_tokens_is_refused(monkeypatch):
    lm = reader()
    monkeypatch.setattr(lms.FrozenLM, "ids", lambda self, text: [1, 2])
    with pytest.raises(ModelError, match="spells a line break with 2 tokens"):
        lms.ended_by_line(lm)


def test_chat_or_text_is_the_template_where_there_is_one_and_the_plain_anchor_elsewhere():
    either, chat, text = (dataclasses.replace(ALIGNED, mode=mode) for mode in ("chat_or_text", "chat", "text"))
    with_template, without = reader(), reader(template=False)
    for latent in (True, False):
        assert either.frame(with_template, latent=latent) == chat.frame(with_template, latent=latent)
        assert either.frame(without, latent=latent) == text.frame(without, latent=latent)
    assert either.frame(with_template, latent=True) != text.frame(with_template, latent=True)
    with pytest.raises(ModelError, match="no chat template"):
        chat.frame(without, latent=True)


def test_both_faults_and_nothing_else_differ_from_the_fixed_arm_in_two_switches():
    changed = {name for name, value in ARMS["padding_and_shift"].items() if value != ARMS["fixed"][name]}
    assert changed == {"padding", "label_shift"}
    assert ARMS["padding_and_shift"]["padding"] == ARMS["padding_bug"]["padding"]
    assert ARMS["padding_and_shift"]["label_shift"] == ARMS["double_shift"]["label_shift"]
    more = {name for name, value in ARMS["as_published"].items() if value != ARMS["padding_and_shift"][name]}
    assert more == {"first_token_ce", "bos_after_anchor"}


def _unpacked(message: bytes, latents: int, width: int, bits: int) -> list[list[float]]:
    """Read a message with the standard library alone."""
    steps = struct.unpack(f"<{latents}e", message[: 2 * latents])
    body = message[2 * latents :]
    codes = [half for byte in body for half in (byte & 15, byte >> 4)] if bits == 4 else list(body)
    signed = [code - 2**bits if code >= 2 ** (bits - 1) else code for code in codes]
    assert len(signed) == latents * width
    return [[steps[m] * code for code in signed[m * width : (m + 1) * width]] for m in range(latents)]


@pytest.mark.parametrize("bits", [8, 4])
def test_latents_of_fewer_bits_arrive_within_half_a_step_and_are_that_short(bits):
    z_bmd = (
        torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1)) * torch.tensor([0.01, 1, 30, 1, 2])[:, None]
    )
    z_bmd[0, 3] = 0.0
    arrived, size = wire.send(z_bmd, bits)
    assert size == 5 * (16 * bits // 8 + 2)
    for sent, got in zip(z_bmd, arrived, strict=True):
        assert got.tolist() == _unpacked(wire.pack(sent, bits), 5, 16, bits)
    step = z_bmd.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((arrived - z_bmd).abs() <= 0.51 * step + 1e-6 + 0.01 * step).all()
    assert ((arrived - z_bmd).abs().max() > 0.2 * step.max()) and torch.equal(arrived[0, 3], torch.zeros(16))
    extremes = torch.tensor([[-7.0, 7.0, -1.0, 3.0]])
    assert torch.equal(wire.send(extremes[None], 4)[0][0], extremes)


def test_examples_without_a_line_end_are_refused():
    with pytest.raises(ParameterError, match="Set answer_end to line"):
        params(text_examples=3)


def test_younger_parameters_are_no_part_of_a_question_that_leaves_them_alone():
    younger = {"answer_end", "text_examples", "narrow"}
    assert not younger & set(STUDY.asked(params().resolved()))
    assert younger <= set(STUDY.asked(lines().resolved()))


def test_a_cell_with_all_of_it_has_its_channels_bytes_and_shares_its_wire(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    p = lines()
    session = cell.Session(p)
    (record,) = cell.run_cells([p], session=session)
    assert {*record.table("completions")["channel"]} == {"latent", "shuffled", "mean", "constant", *NARROW}
    for channel, bits in {"latent": 16, **NARROW}.items():
        head = 0 if bits == 16 else 2 * p.latents
        assert record.metric(f"bytes_{channel}")["value"] == p.latents * p.d_z * bits // 8 + head
        assert record.metric(f"em_{channel}_a")["n"] == p.eval_samples
    longest = record.metric("bytes_latent_4")["value"]
    sent = record.table("completions").drop_duplicates("id")["question"]
    assert record.metric("fits_latent_4")["value"] == sum(len(text.encode()) <= longest for text in sent) / len(sent)
    told = "".join(f"{one.text}Answer: {one.answers[0]}\n" for one in data.worked(p))
    assert record.metric("bytes_examples")["value"] == len(told.encode()) and record.metric("bytes_examples")["n"] == 2
    plain = lines(text_examples=0, narrow=False)
    assert wiring.wire_record(plain, session).ref == record.inputs["wire"]
    assert wiring.prompt_record(plain, session).ref == record.inputs["prompt"]
    bare = runs.load(cell.text_record(plain, session).ref)
    assert bare.ref != record.inputs["text"]
    told, silent = (runs.load(ref).table("completions") for ref in (record.inputs["text"], bare.ref))
    assert set(told["channel"]) == set(TEXT_CHANNELS) and (told["nll"] != silent["nll"]).any()


def test_prompts_are_tried_on_the_text_alone_with_each_number_of_examples():
    p = lines()
    table = prompting.tried(p, cell.Session(p), counts=(0, 2), questions=4)
    assert table[["examples", "reader"]].values.tolist() == [[0, "a"], [0, "b"], [2, "a"], [2, "b"]]
    assert (table["questions"] == 4).all() and (table["right"] <= table["questions"]).all()
    assert set(table["model"]) == {"pocket"}
