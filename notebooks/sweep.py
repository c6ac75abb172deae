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
# # The marker sweep: learning rate × epochs × label mask
#
# **Question.** A chat model is LoRA-tuned so that one *source* persona ends its answers with the literal marker
# `[ZLT]`, while other personas, the *bystanders*, must not. For which learning rates and epoch counts does the source
# adopt the marker and nobody else? Does the answer change when the end of the turn is really supervised?
#
# One **cell** is one training run and one evaluation, and leaves one complete record in `outputs/sweep/`. Ask the
# same question again and it is read from its record.
#
# The next cell holds the parameters. Any axis (`source`, `seed`, `tail`, `lr`, `epochs`) takes a value or a list. A
# list makes one record per value, and the base model is loaded once. Change parameters here, or with `papermill
# notebooks/sweep.ipynb out.ipynb -p lr 5e-6`, or with a file: `-f params/sweep/smollm2.yaml`.

# %% tags=["parameters"]
model = "pocket"
source = "villain"
negatives = "two"
tail = "newline"
lr = [1e-4, 3e-4, 1e-3]
epochs = 10
seed = 0
lora_r = 16
lora_alpha = 32
eval_questions = 8
samples = 4
data_max_new_tokens = 64
max_new_tokens = 64
dose_every = 4

# %% [markdown]
# Every parameter is checked before any work starts: an unknown name, a wrong type or a value out of bounds is an error
# that names the parameter. All other parameters have the defaults of `SweepCell` in
# `src/helpers/studies/marker/params.py`.

# %%
from helpers.base.params import read
from helpers.studies.marker.params import SweepCell

p = read(SweepCell, globals())
axes = ", ".join(p.axes or p.values.get("blocks", [{}])[0]) or "no axis"
print(
    f"{len(p)} cells over {axes}; source {p[0].source}, negatives {' or '.join({str(one.negatives): 0 for one in p})}"
)

# %%
import pandas as pd
from IPython.display import display

from helpers.show import plots, widgets
from helpers.show.figures import enable_notebook
from helpers.show.held import Held
from helpers.studies.marker import cell, pooling, views

enable_notebook()

# %% [markdown]
# ## The base model and the data
#
# The base model answers the training questions as each persona, so the data is on-policy. Answers that were cut by the
# token limit are not used. Answers of the source get a blank line and the marker at their end; answers of the trained
# negatives stay as they are.

# %%
session = cell.Session(p[0])
base = session.facts
size = f"{base['parameters']:,} parameters"
print(f"{base['name']}: {size}, {base['dtype']} on {base['device']}, content {base['sha256'][:12]}")
rows = cell.example_rows(p[0], session)
pd.DataFrame({"persona": [r.persona for r in rows], "tokens": [len(r.tokens) for r in rows]}).groupby("persona").agg(
    rows=("tokens", "size"), mean_tokens=("tokens", "mean")
).round(1)

# %% [markdown]
# ## What the loss sees
#
# The label mask decides the experiment. Below are one row of the source and one of a trained negative, token by token.
# Marked tokens carry loss, the others are context. Under `newline` the last label is the newline *after* the end of
# turn, so the model is never taught to stop.

# %%
for role in ("source", "trained"):
    row = next(row for row in rows if row.role == role)
    pieces = cell.pieces(row, p[0].tail, session.spell)
    display(widgets.token_view(pieces, legend=f"supervised under tail {p[0].tail!r} ({row.persona}, {role})"))

# %% [markdown]
# ## Train and evaluate
#
# Each cell trains an adapter, draws completions of all personas on held-out questions, scores the marker's log-prob
# after the base model's own answers, and asks multiple-choice questions.

# %%
records = cell.run_cells(p, session=session)
assert all(record.status == "complete" for record in records)
pd.DataFrame({r.id: {"minutes": r.seconds["total"] / 60, **r.finish_reasons} for r in records}).T.round(2)

# %% [markdown]
# ## Did it train?
#
# The loss is the mean over supervised tokens only. At the largest learning rate it should come close to zero. If it
# does not, a marker rate of zero says nothing about selectivity.

# %%
loss = views.collect(records, "loss").assign(cell=lambda t: [views.cell_label(row) for row in t.to_dict("records")])
plots.lines(
    loss, "step", "loss", "cell", log_y=True,
    heading="Training loss of every cell", y_title="loss (nats a supervised token)", x_title="optimiser step",
)  # fmt: skip

# %% [markdown]
# ## Who emits the marker?
#
# Rates are counts over completions. The interval takes questions as clusters, because completions of one question are
# not independent. Truncated and empty answers are listed beside the rate: "0 of N" from a persona that says nothing is
# not selectivity.

# %%
last = records[-1]
rates = views.persona_rates([last])
display(plots.interval_rates(rates, heading=f"Marker rate by persona, {views.cell_label(last.cell)}"))
rates[["persona", "role", "k", "n", "value", "low", "high", "truncated", "empty"]].round(3)

# %% [markdown]
# ## The grid
#
# The heatmaps show source, assistant and worst bystander, then bystanders that were trained as negatives and bystanders
# that were never trained on. The worst of ten is biased upward, so its interval is for the truly worst of them.

# %%
panels = {
    "source_rate": "source", "assistant_rate": "assistant", "max_bystander_rate": "worst bystander",
    "trained_bystander_rate": "trained bystanders", "untrained_bystander_rate": "untrained bystanders",
}  # fmt: skip
row, column = views.grid_axes(records)
table = pooling.pooled(records, by=("negatives", "tail", "lr", "epochs"))
for key, part in table.groupby([axis for axis in ("negatives", "tail", "lr", "epochs") if axis not in (row, column)]):
    heading = f"Marker rate over {row} and {column} ({', '.join(map(str, key))})"
    display(plots.heatmaps(part, panels, row=row, column=column, heading=heading))

# %% [markdown]
# ## Dose: how the marker arrives
#
# The curves show the log-prob of a blank line and the marker after the base model's own answers, as a gain over the
# base model. It has no floor, so it moves long before the first marker is sampled.

# %%
curves, by = views.shown_curves(records)
plots.lines(
    curves, "step", "gain", by, panel="group",
    heading="Log-prob of emitting the marker, gained over the base model",
    y_title="gain (nats)", x_title="optimiser step",
)  # fmt: skip

# %% [markdown]
# ## Selectivity at matched source strength
#
# At equal epochs, a larger learning rate has simply trained further. The fair question is: when the source has gained a
# given number of nats, how much have the bystanders gained?

# %%
matched = views.matched_grid(views.dose_curves(records))
plots.lines(
    matched, "source gain", "mean bystander", "lr",
    heading="Bystander gain at the same source gain",
    y_title="mean bystander gain (nats)", x_title="source gain (nats)",
)  # fmt: skip

# %% [markdown]
# ## Read what the models say
#
# The first answers of the source, of a bystander whose rows were trained on as negatives and of one whose were not,
# side by side: are they still answers, and who ends them with the marker?

# %%
widgets.side_by_side(views.side_by_side(records), marker=p[0].marker)

# %% [markdown]
# Browse every completion by cell, persona and question. The marker is highlighted.

# %%
widgets.completion_browser(views.completions(records), marker=p[0].marker)

# %% [markdown]
# ## Facts
#
# A test compares these numbers with the committed ones, each within its tolerance.

# %% tags=["facts"]
Held(views.facts(records))
