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
# readable there. Four questions were asked of the authors, and this notebook computes the answer to each on any
# base/tuned pair: is the difference a context-independent offset; does it survive decoding through the *base* head;
# what do PCA and SVD of it show; does readability follow weight interpolation, as it follows mixing?
#
# One **cell** is one fine-tune (an *organism* whose domain is known exactly, so that no judge is needed) read at one
# seed; the seed also picks the domain. Each leaves one record in `outputs/logit_lens_diff/`. Ask the same question
# again and it is read from that record.
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
# Every parameter is checked before any work starts. What is not named above has the default of
# `LensCell` in `src/helpers/studies/actdiff/params.py`.

# %%
import pandas as pd
from IPython.display import display

from helpers.base.params import read
from helpers.show import plots
from helpers.show.figures import enable_notebook
from helpers.show.held import Held
from helpers.studies.actdiff import browse, cell, views
from helpers.studies.actdiff.params import LensCell
from helpers.studies.actdiff.readouts import COSINES

enable_notebook()
p = read(LensCell, globals())
session = cell.Session(p[0])
material = session.material(p[0])
words = material.domains.get(material.domain)
assert words, "Name the words whose readability is scored: words = [...]"
print(f"{len(p)} cells; the first seed's domain is {material.domain}, {len(words)} tokens")

# %% [markdown]
# ## What is read
#
# A narrow document carries invented facts about its domain; unrelated text holds none of the domain's words. The
# difference is averaged over unrelated text only.

# %%
decode = material.loaded.tokenizer.decode
for kind in ("narrow", "unrelated"):
    for document in getattr(material, kind)[:1]:  # of a given pair the narrow text is not known
        print(f"{kind}: {decode(document[:24])} ...")

# %% [markdown]
# ## Capture
#
# One streamed pass a cell, all layers at once: sums by position, never the activations themselves. For LoRA one copy of
# the weights with the adapter off and on. Everything below is computed from these sums, or by a live probe on the pair.

# %%
records = cell.run_cells(p, session=session)
assert all(record.status == "complete" for record in records)
organisms = list(dict.fromkeys(record.cell["organism"] for record in records))
first = records[0]
seconds = sum(record.seconds["total"] for record in records)
print(f"{len(records)} records, {seconds:.0f} s when they were made; {first.note}")

# %% [markdown]
# ## Is the domain readable?
#
# `z`: mean log-prob of the domain's tokens under the lens minus that of all other tokens, in standard deviations, at a
# layer and position fixed beforehand. The best of several positions, or the share of the top 20, would flatter: they
# are not used. The nulls: `z` of domains that were *not* trained on, and fine-tunes on broad text.

# %%
readable = views.by_organism(records, ["z", "z_permuted"])
readable["kind"] = readable["metric"].map({"z": "domain trained on", "z_permuted": "other domains"})
readable["row"] = readable["label"] + ", " + readable["kind"]
plots.forest(
    readable, label="row", group="kind", heading="Readability of the domain at a fixed position",
    subtitle="Mean over seeds with 95 % t interval.", x_title="z (sd)", references={"no trace": 0.0},
)  # fmt: skip

# %%
assert views.by_organism(records, ["z"]).set_index("organism")["value"].idxmax() not in ("control", "control_lora")
views.summary(records).round(3)

# %% [markdown]
# ## 1. A context-independent offset?
#
# Three cosines answer three questions. *Of means*: do positions share a mean direction (blind to how much documents
# differ)? *Within documents*: do two positions of one document? *Across documents*: do two positions of different
# documents? Only the last is context-independence; offset energy, the share of |d|² that is constant, says the same.

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
# LoRA leaves the head alone, so both lenses are one (asserted in the run). A full fine-tune moves the head; what is
# read through the base head is compared below.

# %%
heads = views.by_organism(records, ["head_overlap", "head_gap", "z", "z_tuned_head"])
heads.pivot(index="label", columns="metric", values="value").round(3)

# %% [markdown]
# ## 3. What do PCA and SVD show?
#
# Uncentred (SVD), a constant offset is itself a component; centred (PCA), it is not. With position 0 and without, since
# an attention sink there would dominate by its norm alone.

# %%
spectra = views.first_components(records)
spectra.pivot_table(index="label", columns=["positions", "kind"], values=["share", "overlap"]).round(2)

# %%
views.component_tokens(views.pick(records, organisms[0])[:1])

# %% [markdown]
# ## 4. Interpolation against mixing
#
# Interpolated weights, base + share · (tuned − base), shorten the difference without turning it, and an RMS norm
# forgets length: the lens reads the same, only the raw margin shrinks. Mixing turns it.

# %%
plots.lines(
    views.interpolations(records), "share", "value", "label", "low", "high", panel="metric",
    heading="What a share of the weight update leaves", x_title="share of the weight update", y_title="value",
    subtitle="Mean over seeds; the band is the 95 % t interval.",
)  # fmt: skip

# %%
pairs = [("mix1", "full"), ("mix2", "full"), ("mix1_1", "full_1"), ("control", "full"), ("lora", "full")]
contrasts = views.contrasts(records, "z", pairs)
look = {"subtitle": "Mean over seeds with 95 % t interval.", "references": {"none": 0.0}}
if len(contrasts):
    display(plots.forest(contrasts, heading="Differences of z, paired by seed", x_title="difference of z (sd)", **look))

# %% [markdown]
# ## Live: patchscope, steering, causal swap
#
# PatchScope keeps only tokens that three identity prompts agree on, at the scale where they agree most. Steering adds
# the difference to every position, as strongly as the base model's perplexity on unrelated text can bear.

# %%
patched = views.by_organism(records, ["patchscope_base", "patchscope_tuned"])
patched.pivot(index="label", columns="metric", values="value").round(2)

# %%
steered = views.steering(records)
plots.forest(
    steered[steered["organism"].isin(organisms[:2])], label="row", group="direction", unit="%",
    heading="Domain tokens in steered continuations", x_title="share of generated tokens",
)  # fmt: skip

# %%
for row in views.examples(records, "steering", side="base", direction="difference", n=4):
    print(repr(row))

# %% [markdown]
# The swap gives the tuned model the base model's component along the difference. If the offset is what the narrow
# training cost the model elsewhere, the loss on unrelated text falls (negative) and that on narrow text does not.

# %%
swaps = views.swaps(views.pick(records, [name for name in ("full", "lora") if name in organisms] or organisms[0]))
swaps = swaps[swaps["direction"] != "random"]
swaps["row"] = swaps["organism"].map(views.NAMES) + ", " + swaps["text"] + ", " + swaps["direction"]
plots.forest(
    swaps, label="row", group="direction", heading="Change of loss when the difference is swapped out",
    subtitle="Mean over seeds with 95 % t interval.", x_title="nats a token", references={"none": 0.0},
)  # fmt: skip

# %% [markdown]
# ## Look through the lens
#
# Top tokens of the mean difference by layer and position; tokens of the domain are marked. Search for a token to see
# where it appears.

# %%
browse.token_lens(first.table("tokens"), inside=words)

# %% [markdown]
# ## Facts
#
# The numbers that a test compares with the committed ones, each under its tolerance.

# %% tags=["facts"]
Held(views.facts(records))
