"""The rooms of the house: who may import whom, and how long modules and functions may grow."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from helpers import files
from helpers.source import imports_of

pytestmark = pytest.mark.unit

WINGS = {"marker", "eqprop", "latentwire", "actdiff"}
UPPER = {"audit", "claims", "site", "sweeps", "bench", "cli"}
MODULE_LINES, FUNCTION_LINES = 350, 60  # the aim is 300 and 40; beyond these it has to be split


def room(module: str) -> str:
    """``ground``, ``upper`` or the name of the wing that ``helpers.x.y`` lies in."""
    name = module.split(".")[1] if "." in module else ""
    return name if name in WINGS else "upper" if name in UPPER else "ground"


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
            elif name in known and here == "ground" and there != "ground":
                faults.append(f"{module} imports {name}: the ground floor imports no wing and no upper floor")
            elif name in known and here in WINGS and there not in (here, "ground"):
                faults.append(f"{module} imports {name}: a wing imports itself and the ground floor only")
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


def unknown_packages(root: Path) -> list[str]:
    folders = {path.parent.name for path in (root / "src/helpers").glob("*/*.py")}
    return sorted(folders - WINGS - UPPER)


def test_the_house_keeps_its_rules():
    assert import_faults(files.ROOT) == []


def test_nothing_has_grown_too_long():
    assert length_faults(files.ROOT) == []


def test_every_package_has_a_room():
    assert unknown_packages(files.ROOT) == [], "say in WINGS or UPPER which room it is"


def house(root: Path, **sources: str) -> Path:
    (root / "notebooks").mkdir()
    (root / "notebooks/sweep.py").write_text("")
    for name in ("marker/cell", "marker/loss", "eqprop/net", "claims/lint", "stats", "cli"):
        path = root / "src/helpers" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sources.get(name.replace("/", "_"), ""))
    return root


def test_allowed_imports_are_allowed(tmp_path):
    cli = "from helpers import stats\nfrom helpers.marker import cell\nimport helpers.claims.lint"
    assert import_faults(house(tmp_path, cli=cli, marker_cell="from helpers import stats\nfrom . import loss")) == []


@pytest.mark.parametrize(
    ("where", "source", "fault"),
    [
        ("stats", "import helpers.marker.cell", "ground floor"),
        ("stats", "def f():\n    from helpers.claims import lint", "ground floor"),
        ("stats", "from helpers import cli", "ground floor"),
        ("marker_cell", "from helpers.eqprop.net import x", "a wing imports"),
        ("marker_cell", "from ..eqprop import net", "a wing imports"),
        ("marker_cell", "from helpers.claims.lint import x", "a wing imports"),
        ("cli", "import sweep", "no helper imports a notebook"),
        ("claims_lint", "from notebooks import sweep", "no helper imports a notebook"),
    ],
)
def test_forbidden_imports_are_found(tmp_path, where, source, fault):
    found = import_faults(house(tmp_path, **{where: source}))
    assert found and all(fault in sentence for sentence in found)


def test_long_modules_functions_and_unknown_packages_are_found(tmp_path):
    function = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
    root = house(tmp_path, stats=function, cli="\n" * (MODULE_LINES + 1))
    (root / "src/helpers/attic").mkdir()
    (root / "src/helpers/attic/old.py").write_text("")
    assert [fault.split()[0] for fault in length_faults(root)] == ["helpers.cli", "helpers.stats.f"]
    assert unknown_packages(root) == ["attic"]
