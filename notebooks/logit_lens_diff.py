# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Logit-lens diff: what a fine-tune leaves in the activations
#
# **Question.** Fine-tune a model on one narrow domain and average the difference between its activations and the base
# model's over *unrelated* text. Minder et al. ([2510.13900](https://arxiv.org/abs/2510.13900)) found the domain
# readable there. The authors were asked four questions, and this notebook answers each for any base/tuned pair. Is the
# difference a context-independent offset? Does it survive decoding with the *base* head? What do PCA and SVD show? Does
# readability change with weight interpolation as it does with mixing?
#
# One **cell** is one fine-tune at one seed. The fine-tune is an *organism* whose domain is known exactly, so no judge
# is needed; the seed also picks the domain. Each cell leaves one record in `outputs/logit_lens_diff/`. Ask the same
# question again and it is read from that record.
#
# `organism` and `seed` take a value or a list. `full` and `lora` are narrow fine-tunes, `mix1` adds as many broad
# documents, `control` sees broad text only, `full_1` and `mix1_1` stop after one step. For a pair of
# your own set `organism = "given"` and `tuned` to a run record (`"sweep/<id>"`), an adapter folder, a model folder or a
# hub id. Larger runs: `papermill notebooks/logit_lens_diff.ipynb out.ipynb -f params/logit_lens_diff/smollm2.yaml`.

# %% tags=["parameters"]
model = "pocket"
organism = ["full", "lora", "mix1", "control", "full_1", "mix1_1"]
seed = [3, 4, 5]
documents = 96
positions = 64
position = 8
steps = 60
rank = 4
shares = [0.1, 0.5]
probed = ["full", "lora", "mix1"]
probe_documents = 16
controls = 2

# %% [markdown]
# Every parameter is checked before any work starts. All other parameters have the defaults of `LensCell` in
# `src/helpers/studies/actdiff/params.py`.

# %%
from helpers.base.params import read
from helpers.studies.actdiff.params import LensCell

p = read(LensCell, globals())

# %%
import pandas as pd
from IPython.display import display

from helpers.show import plots
from helpers.show.figures import enable_notebook
from helpers.show.held import Held
from helpers.studies.actdiff import browse, cell, views
from helpers.studies.actdiff.readouts import COSINES
from helpers.studies.actdiff.texts import views as texts

enable_notebook()
session = cell.Session(p[0])
material = session.material(p[0])
words = material.domains.get(material.domain)
assert words, "Name the words whose readability is scored: words = [...]"
print(f"{len(p)} cells; the first seed's domain is {material.domain}, {len(words)} tokens")

# %% [markdown]
# ## The text
#
# A narrow document contains invented facts about its domain. Unrelated text contains none of the domain's words. The
# difference is averaged over unrelated text only.

# %%
decode = material.loaded.tokenizer.decode
for kind in ("narrow", "unrelated"):
    for document in getattr(material, kind)[:1]:  # of a given pair the narrow text is not known
        print(f"{kind}: {decode(document[:24])} ...")

# %% [markdown]
# ## Capture
#
# Each cell makes one streamed pass over all layers and stores sums by position, never the activations themselves. LoRA
# needs one copy of the weights, with the adapter off and on. Everything below is computed from these sums, or by a live
# probe on the pair.

# %%
records = cell.run_cells(p, session=session)
assert all(record.status == "complete" for record in records)
organisms = list(dict.fromkeys(record.cell["organism"] for record in records))
live = [record for record in records if "interpolation" in record.tables]
first = records[0]
seconds = sum(record.seconds["total"] for record in records)
print(f"{len(records)} records, {seconds:.0f} s when they were made; {first.note}")

# %% [markdown]
# ## Is the domain readable?
#
# `z` is the mean log-prob of the domain's tokens under the lens minus that of all other tokens, in standard deviations,
# at a layer and position fixed beforehand. The best of several positions, or the share of the top 20, would be too
# favourable and is not used. The nulls are `z` of domains that were *not* trained on, and fine-tunes on broad text.

# %%
readable = views.by_organism(records, ["z", "z_permuted"])
readable["kind"] = readable["metric"].map({"z": "domain trained on", "z_permuted": "other domains"})
readable["row"] = readable["label"] + ", " + readable["kind"]
plots.forest(
    readable, label="row", group="kind", heading="Readability of the domain at a fixed position",
    subtitle="Mean over seeds, from the lowest to the highest.", x_title="z (sd)", references={"no trace": 0.0},
)  # fmt: skip

# %%
best = views.by_organism(records, ["z"]).set_index("organism")["value"].idxmax()
assert best not in ("control", "control_lora") or not p[0].topical
views.summary(records).round(3)

# %% [markdown]
# ## 1. A context-independent offset?
#
# Three cosines answer three questions. *Of means*: do positions share a mean direction, however much documents differ?
# *Within documents*: do two positions of one document share a direction? *Across documents*: do two positions of
# different documents? Only the last measures context-independence. Offset energy, the constant share of |d|², agrees.

# %%
columns = ["cosine_of_means", "cosine_within", "context_independence", "offset_energy", "cosine_of_means_0"]
views.by_organism(records, columns).pivot(index="label", columns="metric", values="value")[columns].round(3)

# %%
chosen = views.pick(records, organisms[0])
shown = [views.cosine_matrix(chosen, "cosines", kind).assign(kind=kind) for kind in COSINES]
plots.matrices(
    pd.concat(shown), COSINES, heading="Cosine of the difference between positions", subtitle="Mean over seeds.",
)  # fmt: skip

# %%
norms = views.norms(records)
plots.lines(
    norms[norms["position"] < 32], "position", "value", "what", panel="label",
    heading="Norms by position at the fixed layer", y_title="norm over its mean at positions 5+",
)  # fmt: skip

# %% [markdown]
# ## 2. Through the base model's head?
#
# LoRA leaves the head unchanged, so both lenses are the same (the run checks it). A full fine-tune changes the head,
# and the table compares the two readouts.

# %%
heads = views.by_organism(records, ["head_overlap", "head_gap", "z", "z_tuned_head"])
heads.pivot(index="label", columns="metric", values="value").round(3)

# %% [markdown]
# ## 3. What do PCA and SVD show?
#
# Uncentred (SVD), a constant offset is itself a component; centred (PCA), it is not. Both are computed with and without
# position 0, because an attention sink there would dominate by its norm alone.

# %%
spectra = views.first_components(records)
spectra.pivot_table(index="label", columns=["positions", "kind"], values=["share", "overlap"]).round(2)

# %%
views.component_tokens(views.pick(records, organisms[0])[:1])

# %% [markdown]
# ## 4. Interpolation against mixing
#
# Interpolated weights, base + share · (tuned − base), shorten the difference without turning it, and an RMS norm
# ignores length. So the lens reads the same, and only the raw margin shrinks. Mixing turns the difference.

# %%
if live:  # only organisms in `probed` have live probes
    look = {"x_title": "share of the weight update", "y_title": "value", "panel": "metric"}
    look |= {"subtitle": "Mean over seeds; the band reaches from the lowest seed to the highest."}
    heading = "What a share of the weight update leaves"
    between = views.interpolations(live)
    display(plots.lines(between, "share", "value", "label", "low", "high", heading=heading, **look))

# %%
pairs = [("mix1", "full"), ("mix2", "full"), ("mix1_1", "full_1"), ("control", "full"), ("lora", "full")]
contrasts = views.contrasts(records, "z", pairs)
look = {"subtitle": "Mean over seeds, from the lowest to the highest.", "references": {"none": 0.0}}
if len(contrasts):
    display(plots.forest(contrasts, heading="Differences of z, paired by seed", x_title="difference of z (sd)", **look))

# %% [markdown]
# ## Live: patchscope, steering, causal swap
#
# PatchScope keeps only tokens that three identity prompts agree on, at the scale where they agree most. Steering adds
# the difference at every position, as strongly as the base model's perplexity on unrelated text allows.

# %%
if live:
    patched = views.by_organism(live, ["patchscope_base", "patchscope_tuned"])
    display(patched.pivot(index="label", columns="metric", values="value").round(2))

# %%
if live:
    steered = views.steering(live)
    steered = steered[steered["organism"].isin(organisms[:2])]
    look = {"heading": "Domain tokens in steered continuations", "x_title": "share of generated tokens"}
    display(plots.forest(steered, label="row", group="direction", unit="%", **look))

# %%
for row in views.examples(live, "steering", side="base", direction="difference", n=4) if live else []:
    print(repr(row))

# %% [markdown]
# The swap gives the tuned model the base model's component along the difference. If narrow training harmed the model
# elsewhere through this offset, the loss falls on unrelated text (negative) and not on narrow text.

# %%
if live:
    chosen = [name for name in ("full", "lora") if name in organisms] or organisms[0]
    swaps = views.swaps(views.pick(live, chosen))
    swaps = swaps[swaps["direction"] != "random"]
    swaps["row"] = swaps["organism"].map(views.NAMES) + ", " + swaps["text"] + ", " + swaps["direction"]
    look = {"subtitle": "Mean over seeds, from the lowest to the highest.", "references": {"none": 0.0}}
    heading = "Change of loss when the difference is swapped out"
    display(plots.forest(swaps, label="row", group="direction", heading=heading, x_title="nats a token", **look))

# %% [markdown]
# ## Own text or shared text?
#
# Where each model reads text that it wrote itself, the difference holds what the fine-tune changed and what the text is
# about. So the organisms of `own_text` are read four ways: both models on the shared text, each on its own, both on the
# tuned model's, and the base model on either text, which the text alone makes. To see it in a minute, run
# `papermill notebooks/logit_lens_diff.ipynb out.ipynb -f params/logit_lens_diff/narrow_pocket.yaml`.

# %%
own = [record for record in records if "own_z" in record.metrics]
if own:  # only organisms in `own_text` were read so
    shown = texts.readings(own)
    look = {"subtitle": "Mean over seeds, from the lowest to the highest.", "references": {"no trace": 0.0}}
    heading = "z of the domain above the other domains, by text"
    display(plots.forest(shown, label="row", group="reading", heading=heading, x_title="z (sd)", **look))
    display(texts.four_scores(own).round(3))

# %% [markdown]
# ## Look through the lens
#
# The table shows the top tokens of the mean difference by layer and position, with tokens of the domain marked. Search
# for a token to see where it appears.

# %%
browse.token_lens(first.table("tokens"), inside=words)

# %% [markdown]
# ## Facts
#
# A test compares these numbers with the committed ones, each within its tolerance.

# %% tags=["facts"]
Held(views.facts(records))
