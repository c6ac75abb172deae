"""The model of ``run.json``. Everything that reads or writes a record goes through it.

It refuses unknown and duplicate keys, numbers that are not finite or overflow, ``k > n``, ``low > high``, names that
are not one plain name, and a status that its times or its error contradict.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
    with_config,
)
from typing_extensions import TypedDict

from helpers.base.errors import RecordError
from helpers.base.files import is_relative, shown

SCHEMA = 2
LARGEST = 2**63
NOT_RECORDED = "not recorded"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _must(demand: str, holds: Callable[[str], object]) -> AfterValidator:
    """Return the check that refuses a text of which ``holds`` is not true: it must ``demand``."""

    def check(text: str) -> str:
        if not holds(text):
            raise ValueError(f"must {demand}")
        return text

    return AfterValidator(check)


def _finite(value: Any) -> Any:
    """Refuse values that JSON does not have, and numbers that overflow; return the rest as it is."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _finite(item)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds a number that is not finite")
    elif isinstance(value, int) and not isinstance(value, bool) and not -LARGEST < value < LARGEST:
        raise ValueError("holds a number that overflows")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(f"holds a {type(value).__name__}, which is not JSON")
    return value


_PLAIN = _must("be plain names joined by '/'", lambda path: all(map(NAME.fullmatch, path.split("/"))))
_RESOLVED = _must(
    "be a path that a disk can hold, without '..', backslashes and what cannot be printed",
    lambda path: is_relative(path.removeprefix("/")) and "\\" not in path,
)
Name = Annotated[str, _must("be one plain name of letters, digits, '.', '_' and '-'", NAME.fullmatch)]
File = Annotated[str, _PLAIN]
Ref = Annotated[str, _must("be <notebook>/<id>", lambda ref: ref.count("/") == 1), _PLAIN]
Data = Annotated[str, _RESOLVED]  # read only, and it may lie outside the home folder
Place = Annotated[
    str, _must("be a path relative to the repository or to '~'", lambda path: not path.startswith("/")), _RESOLVED
]
Sha = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Json = Annotated[Any, BeforeValidator(_finite)]
Number = Annotated[float, Field(allow_inf_nan=False)] | Annotated[int, Field(gt=-LARGEST, lt=LARGEST)]
Count = Annotated[int, Field(ge=0, lt=LARGEST)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]


@with_config(ConfigDict(extra="forbid", strict=True))
class MetricValues(TypedDict):
    """One number with what it rests on.

    ``measured`` marks what differs between equal runs (seconds, memory), so that comparisons skip it. The entries after
    it are details of an interval or a maximum.
    """

    value: Number
    unit: str
    n: Count
    k: Count | None
    low: Number | None
    high: Number | None
    method: str | None
    level: Annotated[float, Field(gt=0, lt=1)]
    measured: NotRequired[bool]
    wilson: NotRequired[Pair]
    cluster: NotRequired[Pair | None]
    clusters: NotRequired[Count]
    groups: NotRequired[Count]
    folds: NotRequired[Count]
    persona: NotRequired[str]
    rate_a: NotRequired[Number]
    rate_b: NotRequired[Number]
    only_a: NotRequired[Count]
    only_b: NotRequired[Count]
    base: NotRequired[Number]
    near: NotRequired[Number]
    far: NotRequired[Number]


def _consistent(metric: MetricValues) -> MetricValues:
    k, low, high = metric["k"], metric["low"], metric["high"]
    if k is not None and k > metric["n"]:
        raise ValueError(f"counts k = {k} of n = {metric['n']}")
    if (low is None) != (high is None):
        raise ValueError("has one end of an interval without the other")
    if low is not None and high is not None and low > high:
        raise ValueError(f"has an interval from {low} to {high}, whose ends are swapped")
    return metric


Metric = Annotated[MetricValues, AfterValidator(_consistent)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Criteria(_Part):
    """The criteria file that stood beside the run when it began."""

    path: Place
    sha256: Sha


class Model(_Part):
    """The base model: its content (``sha256`` over ``files``), where it came from, and how it was loaded."""

    name: str
    sha256: Sha
    source: str | None = None
    revision: str | None = None
    files: dict[File, Sha] = {}
    parameters: Count | None = None
    dtype: str | None = None
    device: str | None = None
    readers: Json = None


class Code(_Part):
    """The source files that a run reached, by import from ``entry`` (and from a chosen ``engine``)."""

    entry: str
    engine: str | None = None
    files: dict[Place, Sha]


class Commit(_Part):
    """The state of the repository; ``reason`` says why there is no commit."""

    commit: str | None
    branch: str | None
    dirty: bool | None
    diff_sha256: Sha | None
    reason: str | None = None


class RunRecord(_Part):
    """One run: what was asked, where the answer comes from, and the answer."""

    schema_: Literal[2] = Field(alias="schema")
    id: Name
    notebook: Name
    study: Name
    version: Annotated[int, Field(ge=1)]
    metrics_version: Annotated[int, Field(ge=1)]
    status: Literal["running", "failed", "complete"]
    started: str
    ended: str | None
    seconds: dict[Name, Seconds]
    params: dict[str, Json]
    cell: dict[str, Json]
    data: dict[Data, Sha]
    model: Model
    inputs: dict[str, Ref]
    criteria: Criteria | None
    code: Code
    provenance: Commit
    environment: dict[str, Json]
    launch: str
    metrics: dict[str, Metric]
    finish_reasons: dict[str, Count]
    files: dict[File, Sha]
    error: str | None
    note: str | None = None

    @model_validator(mode="after")
    def _status_and_times_agree(self) -> RunRecord:
        started = _moment("started", self.started)
        ended = None if self.ended is None else _moment("ended", self.ended)
        if ended is not None and ended < started:
            raise ValueError("ended before it started")
        if self.status == "running" and (ended is not None or self.metrics or self.files):
            raise ValueError("is running, but has an end, metrics or files")
        if self.status != "running" and ended is None:
            raise ValueError(f"is {self.status}, but has no end")
        if (self.status == "failed") != (self.error is not None):
            raise ValueError(f"is {self.status}, but its error is {shown(self.error)}")
        return self


_MOMENT = TypeAdapter(AwareDatetime)


def _moment(name: str, text: str) -> datetime:
    try:
        return _MOMENT.validate_python(text)
    except ValidationError:
        raise ValueError(f"{name} is {shown(text)}, not a moment with its time zone") from None


def parse(text: bytes | str) -> dict[str, Any]:
    """Return the content of a ``run.json``, checked; ``ValueError`` of one clause says what is wrong with it."""
    text = text.decode() if isinstance(text, bytes) else text  # json would take UTF-16, too
    try:
        content = check(json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant))
        if SURROGATE.search(text):  # only an escape can be half of a character, and none is written here
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a character, which no page can show") from None
    return content


def check(content: Any) -> dict[str, Any]:
    """Return ``content`` if it is a run record; ``ValueError`` of one clause says what is wrong with it."""
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"it has schema {shown(schema)}, and this version reads {SCHEMA}")
    try:
        RunRecord.model_validate(content)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None
    return content


def first_fault(error: ValidationError) -> str:
    """Return the first thing that pydantic finds wrong, as a clause; odd keys on the path to it are quoted and cut."""
    first = error.errors()[0]
    path = [str(step) if str(step).isprintable() and len(str(step)) <= 80 else shown(step) for step in first["loc"]]
    return f"{'.'.join(path) or 'it'}: {first['msg'].removeprefix('Value error, ')}"


def refuse_metric(where: str, metric: Mapping[str, Any]) -> None:
    """Raise ``RecordError`` when ``metric`` is not one that a record may hold."""
    try:
        _METRIC.validate_python(metric)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:1])
        message = first["msg"].removeprefix("Value error, ")
        raise RecordError(f"{where} is no metric: {f'{field}: ' if field else ''}{message}.") from None


_METRIC = TypeAdapter(Metric)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(name)} is given twice")
    return content


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")
