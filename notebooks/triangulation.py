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
# # Triangulation: is the plateau the estimator, the controller or the architecture?
#
# **Question.** An equilibrium transformer relaxes its state to a fixed point of $F(z) = x - (1+c)z + A(\mathrm{LN} z) +
# M(\mathrm{LN} z)$ and can be trained by *equilibrium propagation* (EP), which reads the gradient out of nudged
# relaxations instead of backpropagating. In a campaign at width 512, EP stopped improving far above backprop. Seven
# experiments ask why, here at a size that two CPU cores train in seconds.
#
# Each experiment is a section and can be run alone:
# `papermill notebooks/triangulation.ipynb out.ipynb -p experiment exp2`. The published size is
# `-f params/triangulation/small.yaml`, the campaign's is `campaign.yaml` (a GPU).

# %% tags=["parameters"]
experiment = "all"
steps = 24
snapshots = [0, 24]
validate_every = 12
batch = 4
t1_long = 60
t2_long = 16
t1_reference = 80
settled = 1e-3
horizons = [20, 40]
navg = 5
probe_batch = 8
lever_batch = 4
growth_steps = 20
validation_batches = 2
lr_grid = [1e-2, 1e-1, 1.0]
arm_steps = 25
grid_steps = 2

# %% [markdown]
# Every parameter is checked before any work starts. All other parameters (the seed, the width) have the defaults of
# `TriangulationCell` (`src/helpers/studies/eqprop/params.py`). Set them in the same way, with `-p seed 1`.

# %%
from helpers.base.params import read
from helpers.studies.eqprop.params import TriangulationCell

p = read(TriangulationCell, globals())
print(f"{len(p)} runs over {', '.join(p.axes) or 'no axis'}")

# %%
import pandas as pd
from IPython.display import display

from helpers.lm import models
from helpers.show import plots
from helpers.show.held import Held
from helpers.studies.eqprop import experiment as entry
from helpers.studies.eqprop import setup, views

plots.enable_notebook()
models.choose_threads()

# %% [markdown]
# ## The text and the model
#
# The text is stories from templates, or any text file (`-p text path`), with a BPE tokenizer trained on it. The name,
# the animal, the place and the thing recur in a story, so the model has something to remember over a distance.

# %%
text = setup.corpus(p[0])
one = setup.arm(p[0], "ep")
print(text.tokenizer.decode(text.train[:160].tolist()))
print(f"{text.vocab} tokens, {len(text.train):,} to train on; {one.facts()['parameters']:,} parameters")

# %% [markdown]
# ## Run
#
# Each training arm has a record of its own (`outputs/triangulation_training/`), shared by the experiments. Each
# experiment with a seed is one record in `outputs/triangulation/`. Existing records are read again.

# %%
records = entry.run_cells(p)
ran = [r.cell["experiment"] for r in records]
assert all(r.status == "complete" for r in records)
pd.DataFrame({r.id: {"seconds": r.seconds["total"], "metrics": len(r.metrics)} for r in records}).T.round(1)

# %% [markdown]
# ## Experiment 1: which gradient still points the right way?
#
# At every checkpoint, each estimate is compared with the exact gradient (implicit function theorem at a long relaxed
# state) by cosine and norm ratio for each parameter group. Only sequences with an equilibrium count, because the others
# have no exact gradient. There are two runs: EP with its controller, and BPTT without one, whose state no longer
# settles in 20 free steps.

# %%
if "exp1" in ran:
    for value, words in {"cosine": "cosine", "decades": "log10 of the norm ratio"}.items():
        curve = views.along_training(records, value)
        display(plots.lines(curve, "step", "value", "group", "low", "high", panel="arm", y_title=words,
                            heading=f"Frozen EP against the exact gradient: {words} by parameter group"))  # fmt: skip

# %% [markdown]
# The growth factor is the spectral radius of $I + \epsilon J^T$ at the state that the free phase reached. Above 1 the
# nudged phase, linearised there, cannot settle. The first chart has a point for each checkpoint. The second shows the
# share of sequences whose adjoint is lost (cosine to the exact one below 0.9), by their own growth factor.

# %%
if "exp1" in ran:
    points = views.growth_against_cosine(records)
    display(plots.scatter_matched(points, "growth", "cosine", "arm", units=("", ""), x_title="growth factor",
                                  y_title="cosine", heading="Growth factor against cosine of frozen EP"))  # fmt: skip
    single = views.lost_by_growth(records)
    display(plots.scatter_matched(single, "growth", "lost", "run", units=("", "%"), x_title="growth factor",
                                  y_title="share of sequences lost", tooltip=["n"],
                                  heading="Sequences lost, by class of their growth factor"))  # fmt: skip

# %% [markdown]
# **The lever.** What brings the cosine back at the last checkpoint of the run without a controller?

# %%
if "exp1" in ran:
    display(plots.forest(views.levers(records), group="group", heading="Cosine to the exact gradient, by lever",
                         references={"1": 1.0}, x_title="cosine"))  # fmt: skip

# %% [markdown]
# ## Experiment 2: is it the learning rate?
#
# Each curve takes one step along a gradient, on the gradient's own batch, over a grid of learning rates. The gradient
# is used as it is, and scaled to the norm of the exact one, so that only its direction matters. *Penalised* is the
# exact gradient plus that of the Jacobian penalty.

# %%
if "exp2" in ran:
    change = views.descent(records)
    display(plots.lines(change, "log10 lr", "value", "gradient", "low", "high", panel="scale",
                        heading="Change of the loss by one step", x_title="log10 of the learning rate",
                        subtitle=f"Rates that raise the loss by more than {views.SHOWN_RISE} nats are left out.",
                        y_title="nats"))  # fmt: skip

# %% [markdown]
# ## Experiment 3: matched training
#
# Trainer, seed, batches and controller are the same, and only the gradient differs. The arms called *free* have neither
# penalty nor gate. The table shows the cost of one gradient.

# %%
if "exp3" in ran:
    display(plots.lines(views.validation(records), "step", "value", "arm", "low", "high", heading="Validation loss",
                        subtitle="Losses above that of guessing evenly are left out.",
                        y_title="nats a token"))  # fmt: skip
    display(views.costs(records).round(4))

# %% [markdown]
# ## Experiment 4: the dead zone between warm-up and gate
#
# Arm A warms up the learning rate, B first trains on the penalty alone, and C starts with small branches and no
# warm-up. A step is skipped, and its task gradient dropped, if its residual is above the gate.

# %%
if "exp4" in ran:
    gate = views.gate(records)
    assert (gate["skips"] <= gate["steps"]).all()
    display(gate)

# %% [markdown]
# ## Experiment 5: floor, target and ceiling of the controller
#
# Each cell continues the EP run for a few steps with other settings of the controller.

# %%
if "exp5" in ran:
    cells = views.grid(records)
    display(plots.heatmaps(cells, list(cells["metric"].unique()), heading="Held-out loss after the warm start (nats)",
                           row="floor", column="target", unit="", domain=views.span(cells)))  # fmt: skip

# %% [markdown]
# ## Experiment 6: do the branches stay small?

# %%
if "exp6" in ran:
    growth = views.branches(records)
    display(growth.pivot_table(index="quantity", columns=["arm", "step"], values="value", sort=False).round(3))

# %% [markdown]
# ## Experiment 7: does contraction cut long-range mixing?
#
# The first chart shows the change of the last state per unit of a random perturbation `distance` tokens before it,
# relative to the nearest distance. The second shows the loss at each position.

# %%
if "exp7" in ran:
    display(plots.lines(views.influence(records), "distance", "value", "arm", "low", "high", log_y=False,
                        heading="Influence against distance", y_title="relative to the nearest"))  # fmt: skip
    display(plots.lines(views.positions(records), "position", "value", "arm", "low", "high",
                        heading="Held-out loss by position", y_title="nats"))  # fmt: skip

# %% [markdown]
# ## Facts
#
# A test compares these numbers with the committed ones, each within its tolerance.

# %% tags=["facts"]
Held(views.facts(records))
