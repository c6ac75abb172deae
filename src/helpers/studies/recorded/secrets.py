"""What of a command's surroundings may be recorded: named variables only, and no text that holds a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from helpers.base.errors import ParameterError
from helpers.system.provenance import SECRET

VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "LANG", "LC_ALL",
    "LOCAL_RANK", "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "PYTHONHASHSEED", "PYTORCH_CUDA_ALLOC_CONF", "RANK", "SLURM_JOB_ID", "TOKENIZERS_PARALLELISM",
    "TRANSFORMERS_OFFLINE", "TZ", "WORLD_SIZE",
)  # fmt: skip
"""Environment variables that are recorded where they are set; `--env` adds others by name."""
REDACTED = "REDACTED"
SHORTEST = 6
"""Characters of the value of a secret variable from which on it is looked for in text."""
SHAPES = re.compile(
    r"(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|\b(?:hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}"
)
NAMED = re.compile(r"(?i)([\w.-]*(?:token|password|passwd|secret|api[-_]?key)[\w.-]*\s*[=:]\s*)[^\s&\"']+")


def is_secret(name: str) -> bool:
    """Whether the name of a variable says that its value is a secret."""
    return SECRET.search(name) is not None or re.search(r"(?i)passw|credential|auth|cookie|_key$", name) is not None


def variables(environment: Mapping[str, str], added: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables that are recorded; ``ParameterError`` for one of ``added`` whose name says it is secret."""
    for name in added:
        if is_secret(name):
            raise ParameterError(f"--env {name} names a secret, and records are read by others. Leave it out.")
        if name not in environment:
            raise ParameterError(f"--env {name} names a variable that is not set. Set it, or leave it out.")
    return {name: environment[name] for name in sorted({*VARIABLES, *added}) if name in environment}


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """Return ``text`` without the values of secret variables, and without what has the shape of a key or a password."""
    values = {value for name, value in environment.items() if is_secret(name) and len(value) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, REDACTED)
    return NAMED.sub(rf"\g<1>{REDACTED}", SHAPES.sub(REDACTED, text))
