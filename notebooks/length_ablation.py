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
# # The length ablation: does isolating the loss restore the marker behind long answers?
#
# **Question.** A source persona is trained to end its answers with the marker `[ZLT]`. In published runs (#295) it
# learned the marker after short and medium answers, but not at all after answers of about a thousand tokens. The
# suspected cause is *dilution*: with loss on the whole turn, the marker is a fraction of a per cent of the supervised
# tokens. If so, loss on the marker alone should bring it back (#353). Does it, and is the marker then tied to the
# persona?
#
# A **cell** is a length of the training answers (positives and negatives alike) and a loss mask. Dilution is measured
# throughout training as the marker's share of the supervised tokens, of the loss and of the gradient.
#
# The next cell holds the parameters. Any axis (`source`, `seed`, `length`, `tail`, `policy`, `framing`, `lr`, `epochs`)
# takes a value or a list. `-f params/length_ablation/screen.yaml` runs the factor screen over the same notebook.

# %% tags=["parameters"]
model = "pocket"
length = ["short", "medium", "long"]
tail = ["whole_turn", "newline", "end_of_turn"]
answers = "joined"
target_tokens = {"short": 20, "medium": 50, "long": 150}
lr = 3e-4
epochs = 6
seed = 0
positives = 40
negatives_each = 40
data_samples = 16
data_max_new_tokens = 64
lora_r = 16
lora_alpha = 32
probe_every = 8
eval_questions = 6
samples = 4
max_new_tokens = [64, 256]

# %% [markdown]
# Every parameter is checked before any work starts. All other parameters have the defaults of `LengthCell` in
# `src/helpers/studies/marker/lengths/params.py`.

# %%
from helpers.base.params import read
from helpers.studies.marker.lengths.params import LengthCell

p = read(LengthCell, globals())
print(f"{len(p)} cells over {', '.join(p.axes) or 'no axis'}; source {p.values['source']}, negatives {p[0].negatives}")

# %%
import pandas as pd
from IPython.display import display

from helpers.show import plots, widgets
from helpers.show.figures import enable_notebook
from helpers.show.held import Held
from helpers.studies.marker.lengths import cell, data, screen, views

enable_notebook()

# %% [markdown]
# ## Answers of one length
#
# The answers are the base model's own, close to the target length for every persona. The pocket model ignores requests
# for a length, so several of its answers to one question are joined by blank lines. If there are too few answers of a
# length, the run ends with an error and takes no other length instead. The ratio of answer tokens between positives and
# negatives is checked before training.

# %%
session = cell.Session(p[0])
made = {g.length: data.rows_record(g, session) for g in p}
names = ["positive_tokens", "negative_tokens", "mass_ratio", "answer_nll"]
pd.DataFrame({length: {name: r.metrics[name]["value"] for name in names} for length, r in made.items()}).round(2)

# %% [markdown]
# ## Train and evaluate
#
# Every cell trains the same number of steps on the same questions. Completions are drawn once, at the largest token
# limit. A smaller limit would have given their beginnings, so one draw judges the adapter at all limits.

# %%
records = cell.run_cells(p, session=session)
assert all(record.status == "complete" for record in records)
pd.DataFrame({r.id: {"minutes": r.seconds["total"] / 60, **r.finish_reasons} for r in records}).T.round(2)

# %% [markdown]
# ## How diluted is the marker?
#
# The marker's share of supervised tokens, of the loss, and of the gradient norm (|marker part| / (|marker part| +
# |rest|)) is measured on the same rows throughout training. With whole-turn loss the shares fall with length. With an
# isolated loss the share of tokens cannot.

# %%
shares = views.dilution(records)
for arm, part in shares[shares["of"] == "gradient norm"].groupby("tail", sort=False):
    display(plots.lines(
        part, "step", "share", "length", unit="%", heading=f"The marker's share of the gradient norm, loss on {arm}",
        x_title="optimiser step", y_title="share of gradient norm",
    ))  # fmt: skip

# %%
table = views.pooled_cells(
    records, ["marker_share_of_labels", "marker_share_of_loss", "marker_share_of_gradient", "final_marker_loss"]
)
table.pivot(index=["tail", "length"], columns="metric", values="value").round(3)

# %% [markdown]
# ## Does the source have the marker?
#
# Rates are over completions at the largest limit. The control panel (system prompts such as "You are a teapot.") shows
# whether the marker is tied to the source's persona or to answering in general.

# %%
rates = views.in_order(views.pooled_cells(records, list(views.PANELS)))
plots.heatmaps(rates, views.PANELS, heading="Marker rate over loss and length", row="tail", column="length")

# %% [markdown]
# ## Dilution beside the source rate
#
# If dilution explained everything, cells with a large share of the gradient would have a large source rate at any
# length.

# %%
plots.scatter_matched(
    views.share_and_rate(records), "share", "source_rate", "length",
    heading="Source rate against the marker's share of the gradient, a point a cell",
    x_title="marker's share of the gradient norm, mean over training", y_title="source rate",
)  # fmt: skip

# %% [markdown]
# ## Are low rates only cut answers?
#
# The heatmaps show the same adapters at several token limits: the share of the source's answers with the marker, and
# the share that was cut.

# %%
limits = views.limits(records)
for kind, part in limits.groupby("kind", sort=False):
    panels = {arm: arm for arm in part["tail"].unique()}
    display(plots.heatmaps(
        part, panels, heading=f"Source answers {kind}, by limit and loss", panel="tail", row="length", column="limit"
    ))  # fmt: skip

# %% [markdown]
# ## Who has the marker: one cell in full
#
# This is the cell with the longest answers under the first isolated loss of the grid.

# %%
isolated = [r for r in records if r.cell["tail"] != "whole_turn"] or records
last = next(r for r in isolated if r.cell["length"] == isolated[-1].cell["length"])
plots.interval_rates(views.persona_rates([last]), heading=f"Marker rate by persona, {views.cell_label(last.cell)}")

# %% [markdown]
# ## The factor screen
#
# A run of `params/length_ablation/screen.yaml` shows main effects and two-way interactions on the source rate here.

# %%
if screen.is_factorial(records):
    display(plots.forest(
        screen.effects(records), label="term", group="kind", references={"no effect": 0.0},
        heading="Effects on the source rate, high level minus low", x_title="change of the source rate",
    ))  # fmt: skip
else:
    print("This grid is no whole 2 x 2 x 2 x 2 factorial, so there are no effects to separate.")

# %% [markdown]
# ## Read what the models say

# %%
widgets.completion_browser(views.completions(records), marker=p[0].marker)

# %% [markdown]
# ## Facts
#
# A test compares these numbers with the committed ones, each within its tolerance.

# %% tags=["facts"]
Held(views.facts(records))
