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
# # LatentWire: two frozen models read one latent prefix
#
# **Question.** A byte-level encoder turns a text into a few latent vectors. A small adapter for each model maps them
# into that model's embedding space, and two frozen models with *different* tokenizers answer a question about the text
# from the latents alone. The published run failed, and its log blames padding. Was it the padding? And what do the
# latents carry once every label is in its right place?
#
# One **cell** is one arm (a named set of switches) and one seed. Arms that differ in decoding only share one trained
# wire, and each model is measured on the text itself only once. Ask the same question again and it is read from its
# record.
#
# Any switch (`padding`, `label_shift`, `first_token_ce`, `bos_after_anchor`, `prefix_gain`, `eos_ban_steps`, ...) and
# `arm` and `seed` take a value or a list: `papermill notebooks/latentwire.ipynb out.ipynb -p arm double_shift`, or
# `-f params/latentwire/pocket_table.yaml`.

# %% tags=["parameters"]
arm = ["fixed", "padding_bug", "as_published"]
seed = 0
train_samples = 2048
eval_samples = 100
steps = 150
lr = 6e-3
checkpoint_every = 50
prompt_steps = 40

# %% [markdown]
# Every parameter is checked before any work starts. All other parameters have the defaults of `WireCell` in
# `src/helpers/studies/latentwire/params.py`. The arms are in `arms.py` beside it.

# %%
import pandas as pd

from helpers.base.params import read
from helpers.studies.latentwire.params import WireCell

p = read(WireCell, globals())
pd.DataFrame([{"arm": c.arm, "seed": c.seed, **c.switches} for c in p])

# %%
from IPython.display import display

from helpers.show import plots
from helpers.show.figures import enable_notebook
from helpers.show.held import Held
from helpers.studies.latentwire import cell, show, views

enable_notebook()

# %% [markdown]
# ## Two readers, two tokenizers, one text
#
# Both models are frozen. They split the same text into different tokens, so neither could use the other's. The wire
# carries `M` vectors of `d_z` numbers in half precision.

# %%
session = cell.Session(p[0])
show.readers(session)

# %% [markdown]
# ## What the loss sees
#
# The tables show how each arm trains reader b on a short answer in a batch with a long one. Every column is a position:
# the token fed there, the token that its logits are compared with, and whether it counts. With the padding fault, most
# targets of a short answer are padding. With a double shift, each position is compared with the token after the next.

# %%
for example in {c.arm: c for c in p}.values():
    display(show.alignment(example, session))

# %% [markdown]
# ## Train and evaluate
#
# Each step trains both readers over a shared Z. Training runs in stretches that end with a checkpoint, so a killed run
# resumes from the last one. Then each reader answers from every channel with the same decoding settings.

# %%
records = cell.run_cells(p, session=session)
assert all(record.status == "complete" for record in records)
display(pd.DataFrame({r.id: {"arm": r.cell["arm"], **r.finish_reasons} for r in records}).T)

# %% [markdown]
# ## Loss against quality
#
# First the training loss of the arms, then the share of correct first tokens, measured with aligned labels on
# validation examples at every checkpoint. A lower loss does not mean a better wire.

# %%
loss = views.loss_curves(records)
quality = views.seed_mean(views.training(records, "curve"), "first1")
display(plots.lines(loss, "step", "loss", "arm", panel="reader", heading="Training loss", y_title="loss (nats)"))
plots.lines(
    quality, "step", "value", "arm", panel="reader", heading="First token right, on validation examples",
    y_title="share right", unit="%",
)  # fmt: skip

# %% [markdown]
# ## What the loss is made of
#
# The masked cross-entropy is a mean over positions. So it is exactly the share of answer tokens times their NLL, plus
# the share of padding times its NLL. The gradient splits the same way. The rest is rounding.

# %%
parts = views.decomposition(records)
assert parts["largest left-over"].max() < 1e-4
display(parts.round(3))
shares = views.seed_mean(views.training(records, "gradient"), "share")
plots.lines(
    shares, "step", "value", "arm", panel="reader", heading="Padding's share of the gradient",
    y_title="share", unit="%",
)  # fmt: skip

# %% [markdown]
# ## Does the prefix carry anything?
#
# A prefix with information must beat one that is not about this text: another text's latents (shuffled), the mean
# latents, or a learned constant. For comparison, the reader also gets the text itself, its first and its last M tokens
# (as many as there are latents), or nothing at all.

# %%
scores = views.scores(records, ["em"])
given = {name: name for name in scores["reader"].unique()}
plots.heatmaps(
    scores.assign(metric=scores["reader"]), given, heading="Exact answers by arm and by what the reader was given",
    row="arm", column="given", columns=1,
)  # fmt: skip

# %%
first = views.scores(records, ["first1"], ["latent", "shuffled", "mean", "constant"])
plots.heatmaps(
    first.assign(metric=first["reader"]), given, heading="First token right, by what the prefix holds",
    row="arm", column="given",
)  # fmt: skip

# %% [markdown]
# ## Communication
#
# The difference of exact answers between a text's own latents and another text's, paired by example. The latents
# communicate only if the whole interval is above zero.

# %%
talk = views.communication(records)
plots.forest(
    talk, heading="Communication: own latents minus another text's", group="reader", references={"none": 0.0},
    x_title="difference of exact answers", subtitle="95% intervals.",
)  # fmt: skip

# %% [markdown]
# ## Aligned against double-shifted NLL
#
# The log measured the NLL of the gold answer on labels that were shifted twice. The table measures the same answers
# both ways. A reader that answers every text correctly looks hopeless on doubly shifted labels.

# %%
views.scores(records, ["nll", "nll_twice", "p_end"], ["text", "latent"]).pivot_table(
    index=["arm", "reader", "given"], columns="score", values="value", sort=False
).round(2)

# %% [markdown]
# ## The cost of the wire, and the models' answers

# %%
display(views.wire_bytes(records))
for side in ("a", "b"):
    display(views.side_by_side(records, side))

# %% [markdown]
# ## Facts
#
# A test compares these numbers with the committed ones, each within its tolerance.

# %% tags=["facts"]
Held(views.facts(records))
