"""The rooms of the house: who may import whom, and how long modules and functions may grow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from helpers.base import files
from helpers.system.source import imports_of

pytestmark = pytest.mark.unit

# From the ground up. Rooms on one floor do not import each other, with the exceptions below.
FLOORS = [
    {"base"},
    {"stats", "system"},
    {"records"},
    {"lm", "show"},
    {"claims", "studies"},  # each study is a room of its own on this floor
    {"cases"},
    {"audit"},
    {"site", "sweeps"},
    {"bench", "export"},
    {"cli"},
]
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}
EXCEPTIONS = {("helpers.sweeps.executing", "helpers.site.notebooks")}  # where a notebook's page is written
MODULE_LINES, FUNCTION_LINES = 350, 60  # the aim is 300 and 40; beyond these it has to be split


def room(module: str) -> str:
    """Return the room that ``helpers.x.y`` lies in, ``studies.x`` for a study; the package itself has none."""
    _, *parts = module.split(".")
    return ".".join(parts[:2] if parts[:1] == ["studies"] else parts[:1])


def level(room: str) -> int | None:
    return LEVEL.get(room.split(".")[0])


def modules(root: Path) -> dict[str, Path]:
    paths = sorted((root / "src/helpers").rglob("*.py"))
    names = [path.relative_to(root / "src").with_suffix("").as_posix().replace("/", ".") for path in paths]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, paths, strict=True)}


def import_faults(root: Path) -> list[str]:
    """One sentence for each import that the rules forbid."""
    notebooks = {path.stem for path in (root / "notebooks").glob("*") if path.suffix in (".py", ".ipynb")}
    faults = []
    known = modules(root)
    for module, path in known.items():
        is_package = path.name == "__init__.py"
        for name in sorted(imports_of(path.read_text(encoding="utf-8"), module, is_package=is_package)):
            here, there = room(module), room(name)
            if name.split(".")[0] in notebooks | {"notebooks", "tests"}:
                faults.append(f"{module} imports {name}: no helper imports a notebook or a test")
            elif name not in known or there in ("", "studies", here) or (module, name) in EXCEPTIONS:
                continue
            elif (level(here) or 0) <= (level(there) or 0):
                faults.append(f"{module} imports {name}: {here or 'the package'} is not above {there}")
    return faults


def length_faults(root: Path) -> list[str]:
    """One sentence for each module or function that has grown too long."""
    faults = []
    for module, path in modules(root).items():
        source = path.read_text(encoding="utf-8")
        lines = source.count("\n")
        if lines > MODULE_LINES:
            faults.append(f"{module} has {lines} lines, more than {MODULE_LINES}: split it by meaning")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    faults.append(f"{module}.{node.name} has {lines} lines, more than {FUNCTION_LINES}: split it")
    return faults


def unknown_rooms(root: Path) -> list[str]:
    """Modules that lie in no known room; ``helpers`` itself holds its ``__init__`` only."""
    return [name for name in modules(root) if name != "helpers" and level(room(name)) is None]


def test_the_house_keeps_its_rules():
    assert import_faults(files.ROOT) == []


def test_nothing_has_grown_too_long():
    assert length_faults(files.ROOT) == []


def test_every_module_has_a_room():
    assert unknown_rooms(files.ROOT) == [], "say in FLOORS which room it is"


def house(root: Path, **sources: str) -> Path:
    (root / "notebooks").mkdir()
    (root / "notebooks/sweep.py").write_text("")
    for name in (
        "studies/marker/cell",
        "studies/marker/loss",
        "studies/eqprop/net",
        "claims/criteria",
        "site/lint",
        "site/notebooks",
        "sweeps/executing",
        "base/files",
        "records/runs",
        "lm/models",
        "show/plots",
        "cli",
    ):
        path = root / "src/helpers" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sources.get(name.removeprefix("studies/").replace("/", "_"), ""))
    return root  # fmt: skip


def test_allowed_imports_are_allowed(tmp_path):
    cli = "from helpers.base import files\nfrom helpers.studies.marker import cell\nimport helpers.site.lint"
    cell = "from helpers.lm import models\nfrom . import loss"
    sources = {"cli": cli, "marker_cell": cell, "sweeps_executing": "from helpers.site.notebooks import x"}
    assert import_faults(house(tmp_path, **sources)) == []


@pytest.mark.parametrize(
    ("where", "source", "fault"),
    [
        ("base_files", "import helpers.studies.marker.cell", "base is not above studies.marker"),
        ("base_files", "def f():\n    from helpers.claims import criteria", "base is not above claims"),
        ("base_files", "from helpers import cli", "base is not above cli"),
        ("records_runs", "from helpers.lm import models", "records is not above lm"),
        ("lm_models", "from helpers.show import plots", "lm is not above show"),
        ("show_plots", "from helpers.claims import criteria", "show is not above claims"),
        ("marker_cell", "from helpers.studies.eqprop.net import x", "studies.marker is not above studies.eqprop"),
        ("marker_cell", "from ..eqprop import net", "studies.marker is not above studies.eqprop"),
        ("marker_cell", "from helpers.claims.criteria import x", "studies.marker is not above claims"),
        ("marker_cell", "from helpers.site.lint import x", "studies.marker is not above site"),
        ("claims_criteria", "from helpers.site import lint", "claims is not above site"),
        ("site_lint", "from helpers.sweeps import executing", "site is not above sweeps"),
        ("sweeps_executing", "from helpers.site import lint", "sweeps is not above site"),
        ("cli", "import sweep", "no helper imports a notebook"),
        ("claims_criteria", "from notebooks import sweep", "no helper imports a notebook"),
    ],
)
def test_forbidden_imports_are_found(tmp_path, where, source, fault):
    faults = import_faults(house(tmp_path, **{where: source}))
    assert faults and all(fault in sentence for sentence in faults)


def test_long_modules_functions_and_unknown_packages_are_found(tmp_path):
    function = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
    root = house(tmp_path, base_files=function, cli="\n" * (MODULE_LINES + 1))
    for name in ("attic/old", "studies/sixth/cell", "loose"):
        path = root / "src/helpers" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    assert [fault.split()[0] for fault in length_faults(root)] == ["helpers.base.files.f", "helpers.cli"]
    assert unknown_rooms(root) == ["helpers.attic.old", "helpers.loose"]
