"""The layout: which package may import which, read from every import statement of the shipped code.

`python -m tests.test_layout` prints the figures.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("earface", "ear_teacher", "dsr", "facial_rec", "pipeline")
BELOW = ("earface.core", "earface.data", "earface.nn", "earface.metrics")  # each stands on those before it
TRAINING = (*BELOW, "earface.reports", "earface.training", "earface.export")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "earface": ("earface.core",),
    **{layer: BELOW[:place] for place, layer in enumerate(BELOW)},
    "earface.synthetic": ("earface.core", "earface.data"),
    "earface.reports": BELOW,
    "earface.training": (*BELOW, "earface.reports"),
    "earface.export": BELOW,
    "earface.doctor": BELOW,
    "ear_teacher": (*TRAINING, "earface.synthetic"),
    "dsr": (*TRAINING, "earface.synthetic"),
    "facial_rec": (*TRAINING, "earface.synthetic"),
    "pipeline": (*TRAINING, "ear_teacher", "dsr", "facial_rec"),
}
WIRING = {  # entry scripts that put two model packages together
    ("dsr.train_dsr", "facial_rec.recognizer"),
    ("dsr.evaluate", "facial_rec.recognizer"),
    ("facial_rec.finetune_edgeface", "dsr.upsampler"),
    ("facial_rec.evaluate", "dsr.upsampler"),
}
PLAIN = ("config", "options", "picture_options", "face_folders", "face_sizes")  # no library takes part in them
HEAVY = {"torch", "cv2", "numpy", "matplotlib", "albumentations", "sklearn", "timm"}
LIGHTNING_FREE = ("model", "losses", "annealing", "metrics")  # plain PyTorch
LIGHTNING = {"pytorch_lightning", "lightning_fabric", "lightning"}
Imports = Callable[[], dict[str, set[str]]]


@cache
def shipped() -> dict[str, Path]:
    """Module name -> file, of every file in the wheel."""
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return {module_name(file): file for file in files}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_from(tree: ast.AST) -> set[str]:
    """Every module that is imported, also in functions and under TYPE_CHECKING; `from a import b` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def imported_at_start(tree: ast.AST) -> set[str]:
    """Of `imported_from`, what importing the module imports: not in functions, nor under TYPE_CHECKING or as a main."""
    lazy = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    found: set[str] = set()
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= imported_from(node)
        elif isinstance(node, ast.If) and {"TYPE_CHECKING", "__name__"} & names_in(node.test):
            ahead.extend(node.orelse)
        elif not isinstance(node, lazy):
            ahead.extend(ast.iter_child_nodes(node))
    return found


def names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@cache
def imports() -> dict[str, set[str]]:
    """Module -> the modules it imports, of ours and of others. A package's submodule brings the package's __init__."""
    ours = shipped()
    return {name: imported_from(ast.parse(file.read_text("utf-8"))) for name, file in ours.items()}


@cache
def imports_at_start() -> dict[str, set[str]]:
    """As `imports`, of `imported_at_start`."""
    return {name: imported_at_start(ast.parse(file.read_text("utf-8"))) for name, file in shipped().items()}


@cache
def arrows() -> dict[str, frozenset[str]]:
    """Module -> those of ours that it imports."""
    ours = shipped()
    return {name: frozenset(found & ours.keys() - {name}) for name, found in imports().items()}


def layer_of(module: str) -> str:
    return max((layer for layer in MAY_IMPORT if module == layer or module.startswith(layer + ".")), key=len)


def is_entry_script(tree: ast.Module) -> bool:
    """It has `main`, and runs it."""
    defines = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
    runs = any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)
    return defines and runs


def reached(module: str, of: Imports = imports) -> set[str]:
    """Every module that importing it may import, of ours and of others, with the packages above each."""
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        name = ahead.pop()
        if name in seen:
            continue
        seen |= {name, name.split(".")[0]} if name not in shipped() else {name}
        ahead.extend(of().get(name, ()))
        if name in shipped() and "." in name:
            ahead.append(name.rpartition(".")[0])
    return seen


def circles() -> list[list[str]]:
    """Files that import each other, directly or by way of others: strongly connected components (Tarjan 1972)."""
    found: list[list[str]] = []
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for other in arrows()[name]:
            if other not in number:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == number[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in arrows():
        if name not in number:
            visit(name)
    return found


def against_the_order() -> list[str]:
    pairs = [(name, other) for name, others in arrows().items() for other in sorted(others)]
    return [
        f"{name} -> {other}"
        for name, other in pairs
        if layer_of(other) not in (layer_of(name), *MAY_IMPORT[layer_of(name)])
        and (name, other) not in WIRING
        and other != "earface"  # the package itself, which knows the version
        and not (other in PACKAGES and any(name == a and b.startswith(other + ".") for a, b in WIRING))
    ]


@cache
def entry_scripts() -> set[str]:
    return {name for name, file in shipped().items() if is_entry_script(ast.parse(file.read_text("utf-8")))}


def entry_scripts_imported() -> list[str]:
    scripts = entry_scripts()
    shipped_arrows = [(name, other) for name, others in arrows().items() for other in others]
    for file in sorted((ROOT / "benchmarks").rglob("*.py")):
        found = imported_from(ast.parse(file.read_text("utf-8")))
        shipped_arrows += [(module_name(file), other) for other in found]
    return sorted(f"{name} -> {other}" for name, other in shipped_arrows if other in scripts)


def torch_reached() -> list[str]:
    plain = [n for n in shipped() if n.startswith("earface.core") or n.rpartition(".")[2] in PLAIN]
    return sorted(name for name in plain if HEAVY & reached(name))


def torch_reached_at_start() -> list[str]:
    return sorted(
        name
        for name in entry_scripts()
        if (HEAVY | LIGHTNING | {"huggingface_hub", "PIL"}) & reached(name, imports_at_start)
    )


def lightning_reached() -> list[str]:
    free = [n for n in shipped() if layer_of(n) in (*BELOW, "earface.synthetic", "earface.export")]
    free += [n for n in shipped() if n.rpartition(".")[2] in LIGHTNING_FREE or ".metrics." in n]
    return sorted(name for name in set(free) if LIGHTNING & reached(name))


def ear_subfolders_imported() -> list[str]:
    """detector, eigenears and embeddings stand beside each other; below the entry scripts, nothing stands on them."""
    of = {name: name.split(".")[1] for name in arrows() if name.startswith("ear_teacher.") and name.count(".") > 1}
    beside = {"detector", "eigenears", "embeddings"}
    return sorted(
        f"{name} -> {other}"
        for name, others in arrows().items()
        for other in others
        if of.get(other) in beside and of.get(name) != of[other] and name.split(".")[0] == "ear_teacher"
        if name not in ("ear_teacher.extract",)
    )


def generic_names_imported() -> list[str]:
    generic = {"data", "training", "tests", "benchmarks"}
    return sorted(f"{n} -> {o}" for n, others in imports().items() for o in others if o.split(".")[0] in generic)


RULES = {
    "upward or sideways": against_the_order,
    "entry scripts imported": entry_scripts_imported,
    "circles": circles,
    "torch, numpy or their like reached from core or from options": torch_reached,
    "torch, numpy or their like reached from an entry script before it has parsed": torch_reached_at_start,
    "detector, eigenears or embeddings imported from beside them": ear_subfolders_imported,
    "Lightning reached below training, or from a model, its losses or metrics": lightning_reached,
    "imports of data, training, tests or benchmarks": generic_names_imported,
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    assert RULES[rule]() == []


@pytest.mark.parametrize("package", ["ear_teacher", "dsr", "facial_rec", "pipeline"])
def test_type_checkers_see_what_a_package_offers(package: str) -> None:
    """The stub imports each name from where the package itself takes it on first use."""
    stub = ast.parse((ROOT / package / "__init__.pyi").read_text("utf-8"))
    offered = import_module(package)
    found = {
        alias.asname: getattr(import_module(str(node.module)), alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert found == {name: getattr(offered, name) for name in offered.__all__}


if __name__ == "__main__":
    count = Counter({name: len(others) for name, others in arrows().items()})
    print(f"{len(count)} files, {count.total()} arrows")
    for rule, broken in RULES.items():
        print(f"{rule}: {broken()}")
