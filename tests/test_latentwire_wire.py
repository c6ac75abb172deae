"""Encoder, adapters, composer and losses: batch invariance, amplitudes, label alignment, masks, the decomposition."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from latentwire_fixture import ALIGNED, prefix, readers, wire
from torch.nn import functional
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from helpers.base.errors import DataError, ModelError
from helpers.studies.latentwire import encoder, lms, losses, train
from helpers.studies.latentwire.adapter import Adapter
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.decode import Decoding, answer_text, decode
from helpers.studies.latentwire.wire import pack, send, unpack

pytestmark = pytest.mark.unit

TEXTS = ["c=ba;s=lo;?c", "c=bagilo;s=kudekosa;?s", "c=mune;s=ka;?c"]
WORDS = ["ba", "kudekosa", "mune"]
BOTH = pytest.mark.parametrize("side", [0, 1], ids=["char", "syllable"])


def answers(lm) -> list[list[int]]:
    return [ALIGNED.answer(lm, word) for word in WORDS]


def test_z_of_a_text_does_not_depend_on_the_texts_beside_it() -> None:
    model = wire().encoder
    together = model(encoder.to_bytes(TEXTS, 64))
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(together[row], model(encoder.to_bytes([text], 64))[0], atol=2e-6, rtol=1e-5)


def test_without_the_padding_mask_it_would_depend_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = wire().encoder
    together = model(encoder.to_bytes(TEXTS, 64))
    forward = encoder.Attention.forward
    monkeypatch.setattr(
        encoder.Attention, "forward", lambda self, q, k, real: forward(self, q, k, torch.ones_like(real))
    )
    assert (model(encoder.to_bytes(TEXTS, 64))[0] - together[0]).abs().max() > 1e-2


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_what_stands_in_the_padding_never_reaches_z(norm: str) -> None:
    model = encoder.ByteEncoder(2, 16, 2, 4, norm)
    encoder.initialise(model, 0, "test")
    batch = encoder.to_bytes(["ab", "abcdef"], 64)
    before = model(batch)
    with torch.no_grad():
        model.embedding.weight[encoder.PAD] = 1e4
    torch.testing.assert_close(model(batch), before)


def test_the_prefix_has_the_amplitude_of_the_readers_tokens_example_by_example() -> None:
    adapter = Adapter(16, 24, rms=0.37)
    encoder.initialise(adapter, 0, "test")
    z = (
        torch.randn(4, 3, 16, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1.0, 5, 0.1, 2])[:, None, None]
    )
    out = adapter(z)
    torch.testing.assert_close(out.square().mean((1, 2)).sqrt(), torch.full((4,), 0.37))
    torch.testing.assert_close(out[1], adapter(z[1:2])[0])


def gemma() -> tuple[Gemma3ForCausalLM, PreTrainedTokenizerFast]:
    config = Gemma3TextConfig(
        vocab_size=80, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, sliding_window=64, layer_types=["full_attention"] * 2,
    )  # fmt: skip
    torch.manual_seed(0)
    return Gemma3ForCausalLM(config).eval(), readers()[1].tokenizer


def test_calibration_is_what_the_first_block_sees_also_where_the_model_scales_its_embeddings() -> None:
    """Gemma multiplies by sqrt(D): the RMS of its weight matrix would be too small by that factor."""
    model, tokenizer = gemma()
    lm = lms.reader("a", "gemma", model, tokenizer)
    seen: list[torch.Tensor] = []
    model.get_decoder().layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
    )
    ids = torch.tensor([lm.ids(TEXTS[1])])
    model(input_ids=ids)
    rms = lms.embedding_rms(lm, [TEXTS[1]])
    assert rms == pytest.approx(seen[0].square().mean().sqrt().item(), rel=1e-5)
    assert rms > 4 * model.get_input_embeddings().weight.square().mean().sqrt().item()
    adapter = Adapter(16, lm.width, rms)
    encoder.initialise(adapter, 0, "test")
    with torch.no_grad():
        lm.hidden(adapter(torch.randn(1, 5, 16)))
    assert seen[1].square().mean().sqrt().item() == pytest.approx(rms, rel=1e-4)


@BOTH
def test_real_embeddings_through_the_composer_give_what_token_ids_give(side: int) -> None:
    """The control of the spec: handing over embeddings is not what makes latents hard to read."""
    lm = readers()[side]
    context, lengths = ALIGNED.contexts(lm, [lm.embed(torch.tensor([lm.ids(text)]))[0] for text in TEXTS], latent=False)
    labels = ALIGNED.labels(lm, answers(lm))
    logits = losses.teacher_logits(lm, context, lengths, labels)
    for row, text in enumerate(TEXTS):
        bos = [lm.bos] if lm.bos is not None else []
        ids = bos + lm.ids(text) + lm.ids("Answer: ") + answers(lm)[row]
        hidden = lm.decoder(input_ids=torch.tensor([ids])).last_hidden_state[0]
        n = len(answers(lm)[row])
        torch.testing.assert_close(logits[row, :n], lm.head(hidden[-n - 1 : -1]), atol=1e-4, rtol=1e-4)


@BOTH
def test_greedy_tokens_teacher_forced_reproduce_under_argmax(side: int) -> None:
    """Label alignment: a shift too many or too few would break it at the first token."""
    lm = readers()[side]
    context, lengths = ALIGNED.contexts(lm, prefix(lm, 4), latent=True)
    written = decode(lm, context, lengths, Decoding(10), seed=0, keys=list("abcd"))
    rows = [one.tokens + ([lm.end] if one.finish == "stop" else []) for one in written]
    labels = ALIGNED.labels(lm, rows)
    best = losses.teacher_logits(lm, context, lengths, labels).argmax(-1)
    assert (best == labels.targets)[labels.counted].all()
    twice = dataclasses.replace(ALIGNED, label_shift="twice").labels(lm, rows)
    assert not (losses.teacher_logits(lm, context, lengths, twice).argmax(-1) == twice.targets)[twice.counted].all()


@BOTH
@pytest.mark.parametrize("shift", ["once", "twice"])
def test_the_shifts_are_what_a_causal_lm_makes_of_labels(side: int, shift: str) -> None:
    """Reference: transformers' own loss, given whole rows (once) or rows that the caller had sliced already (twice)."""
    lm = readers()[side]
    composer = dataclasses.replace(ALIGNED, padding="left_unmasked", label_shift=shift)
    context, lengths = composer.contexts(lm, prefix(lm, 3), latent=True)
    rows, longest = answers(lm), max(map(len, answers(lm)))
    y = torch.tensor([[lm.pad] * (longest - len(ids)) + ids for ids in rows])
    fed, wanted = (y[:, :-1], y[:, 1:]) if shift == "twice" else (y, y)
    embeds = torch.cat([context, lm.embed(fed)], dim=1)
    labels = torch.cat([torch.full(context.shape[:2], -100), wanted], dim=1)
    hidden = lm.hidden(embeds).last_hidden_state
    from transformers.loss.loss_utils import ForCausalLMLoss

    theirs = ForCausalLMLoss(lm.head(hidden), labels, vocab_size=lm.head.out_features)
    ours = composer.labels(lm, rows)
    nll = losses.token_nll(losses.teacher_logits(lm, context, lengths, ours), ours.targets)
    torch.testing.assert_close(nll[ours.counted].mean(), theirs)


@BOTH
def test_masked_padding_changes_no_answers_loss(side: int) -> None:
    lm = readers()[side]
    middles = prefix(lm, 3)
    context, lengths = ALIGNED.contexts(lm, middles, latent=True)
    labels = ALIGNED.labels(lm, answers(lm))
    nll = losses.token_nll(losses.teacher_logits(lm, context, lengths, labels), labels.targets)
    for row in range(3):
        context, lengths = ALIGNED.contexts(lm, middles[row : row + 1], latent=True)
        alone = ALIGNED.labels(lm, answers(lm)[row : row + 1])
        one = losses.token_nll(losses.teacher_logits(lm, context, lengths, alone), alone.targets)
        torch.testing.assert_close(nll[row][labels.counted[row]], one[0])


def test_the_end_is_supervised_also_where_it_pads() -> None:
    lm = readers()[0]
    assert lm.pad == lm.end
    labels = ALIGNED.labels(lm, answers(lm))
    last = [row[counted][-1].item() for row, counted in zip(labels.targets, labels.counted, strict=True)]
    assert last == [lm.end] * 3
    assert labels.counted.sum().item() == sum(map(len, answers(lm)))


def test_an_answer_of_one_row_has_no_padding_to_be_trained_on() -> None:
    lm = readers()[1]
    left = dataclasses.replace(ALIGNED, padding="left_unmasked").labels(lm, answers(lm)[:1])
    assert not left.is_pad.any() and left.counted.all()


@BOTH
def test_the_loss_is_the_sum_of_its_parts_and_so_is_its_gradient(side: int) -> None:
    lm = readers()[side]
    model = wire()
    composer = dataclasses.replace(ALIGNED, padding="left_unmasked")
    z = model.encoder(encoder.to_bytes(TEXTS, 64))
    context, lengths = composer.contexts(lm, model.adapters[lm.side](z), latent=True)
    labels = composer.labels(lm, answers(lm))
    logits = losses.teacher_logits(lm, context, lengths, labels)
    nll = losses.token_nll(logits, labels.targets)
    made_of = losses.parts(nll, labels)
    whole = functional.cross_entropy(logits.flatten(0, 1), labels.targets.flatten())
    assert made_of.p_pad == pytest.approx(labels.is_pad.float().mean().item())
    together = (1 - made_of.p_pad) * made_of.nll_real + made_of.p_pad * made_of.nll_pad
    assert together == pytest.approx(whole.item(), rel=1e-5)
    found = train.shares(model, whole, made_of.real, made_of.pad)
    assert found["identity_error"] < 1e-4
    assert 0 < found["share"] < 1
    assert losses.parts(nll, ALIGNED.labels(lm, answers(lm))).nll_pad is None


def test_the_wire_sends_half_precision_and_counts_its_bytes() -> None:
    z = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    arrived, size = send(z)
    assert size == 3 * 16 * 2
    torch.testing.assert_close(arrived, z.half().float(), rtol=0, atol=0)
    assert unpack(pack(z[0]), 3).shape == (3, 16)
    with pytest.raises(DataError, match="fp16 cannot send"):
        pack(z[0] * 1e9)


@pytest.mark.parametrize("length", [1, 3])
def test_decoding_does_not_depend_on_the_batch(length: int) -> None:
    lm = readers()[0]
    middles = [lm.embed(torch.tensor([lm.ids(text)[:-length]]))[0] for text in TEXTS]
    together = decode(lm, *ALIGNED.contexts(lm, middles, latent=False), Decoding(8), seed=0, keys=TEXTS)
    for row, middle in enumerate(middles):
        (alone,) = decode(
            lm, *ALIGNED.contexts(lm, [middle], latent=False), Decoding(8), seed=0, keys=TEXTS[row : row + 1]
        )
        assert (alone.tokens, alone.finish) == (together[row].tokens, together[row].finish)
        assert alone.p_end == pytest.approx(together[row].p_end, abs=1e-4)


def test_the_pocket_readers_answer_from_the_text_and_a_ban_of_the_end_spoils_short_answers() -> None:
    for lm in readers():
        middles = [lm.embed(torch.tensor([lm.ids(text)]))[0] for text in TEXTS]
        context = ALIGNED.contexts(lm, middles, latent=False)
        free, banned = (decode(lm, *context, Decoding(12, ban), seed=0, keys=TEXTS) for ban in (0, 6))
        assert [answer_text(lm, one.tokens) for one in free] == WORDS
        assert all(len(one.tokens) >= 6 for one in banned)
        assert answer_text(lm, banned[0].tokens) != WORDS[0]


def test_a_sampled_first_token_has_a_stream_of_its_own_and_the_rest_stays_greedy() -> None:
    lm = readers()[0]
    context = ALIGNED.contexts(lm, prefix(lm, 1).expand(40, -1, -1), latent=True)
    how = Decoding(4, first_token_temperature=5.0)
    one, two = (decode(lm, *context, how, seed=0, keys=[str(i) for i in range(40)]) for _ in range(2))
    assert one == two
    by_first = {}
    for written in one:
        by_first.setdefault(tuple(written.tokens[:1]), set()).add(tuple(written.tokens))
    assert len(by_first) > 3
    assert all(len(rest) == 1 for rest in by_first.values())


def test_a_reader_without_embeddings_or_end_token_is_refused() -> None:
    model, tokenizer = gemma()
    model.get_input_embeddings = lambda: None
    with pytest.raises(ModelError, match="no input embedding layer"):
        lms.reader("a", "blind", model, tokenizer)
    with pytest.raises(ModelError, match="no input embedding layer"):
        lms.reader("a", "linear", torch.nn.Linear(2, 2), tokenizer)
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, pad_token="<|pad|>")
    with pytest.raises(ModelError, match="no end token"):
        lms.reader("a", "endless", gemma()[0], endless)


@pytest.mark.parametrize(
    ("composer", "text", "message"),
    [
        (Composer(answer_limit=4), "bagilo", "answer_limit is 4"),
        (ALIGNED, "", "has no tokens"),
        (ALIGNED, "xyz!", "no token"),
    ],
)
def test_answers_that_cannot_be_taught_are_refused(composer: Composer, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        composer.answer(readers()[0], text)


def test_texts_that_cannot_be_sent_are_refused() -> None:
    with pytest.raises(DataError, match="context is empty"):
        encoder.to_bytes(["ab", ""], 8)
    with pytest.raises(DataError, match="9 bytes, but byte_max is 8"):
        encoder.to_bytes(["abcdefghi"], 8)


def test_a_chat_anchor_needs_a_template_and_stands_around_the_prefix() -> None:
    lm = readers()[0]
    chat = dataclasses.replace(ALIGNED, mode="chat")
    with pytest.raises(ModelError, match="no chat template"):
        chat.frame(lm, latent=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=lm.tokenizer._tokenizer, eos_token="</s>", bos_token="<s>",
        chat_template="{% for m in messages %}s={{ m['content'] }};{% endfor %}?s",
    )  # fmt: skip
    frame = chat.frame(dataclasses.replace(lm, tokenizer=tokenizer), latent=True)
    assert frame.before == lm.ids("s=") and frame.after == lm.ids(";?sAnswer: ")


def test_bos_behind_the_anchor_is_for_latents_of_readers_that_have_one() -> None:
    char, syllable = readers()
    policy = dataclasses.replace(ALIGNED, bos_after_anchor=True)
    assert policy.frame(char, latent=True).after[-1] == char.bos
    assert policy.frame(char, latent=False).after == char.ids("Answer: ")
    assert policy.frame(syllable, latent=True) == ALIGNED.frame(syllable, latent=True)
