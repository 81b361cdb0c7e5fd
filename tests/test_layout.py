"""The house's own rules: one name six files, who may import whom, how large a room may grow."""

import ast
import importlib
from pathlib import Path

import pytest

import fastssl.ops

ROOT = Path(__file__).parent.parent

# Who may import whom: a package knows those listed, itself, and nothing else of fastssl's.
KNOWS = {
    "fastssl.__main__": {"cli"},
    "fastssl.errors": set(),
    "fastssl.classifier": {"models", "data", "algorithms", "recipes", "reporting", "errors"},
    "fastssl.estimators": {"ops"},
    "fastssl.ops": set(),
    "fastssl.models": {"ops", "errors"},
    "fastssl.data": {"ops", "errors"},
    "fastssl.objectives": {"ops"},
    "fastssl.losses": {"ops", "objectives"},
    "fastssl.algorithms": {"ops", "models", "objectives", "errors"},
    "fastssl.training": {"ops", "algorithms", "errors"},
    "fastssl.reporting": {"training", "errors"},
    "fastssl.recipes": {"ops", "models", "data", "algorithms", "training", "errors"},
}
# Libraries that only some rooms may import at all, and those that none imports while it is loading.
ONLY_IN = {
    "click": {"cli"},
    "matplotlib": {"fastssl.reporting", "benchmarks"},
    "jinja2": {"fastssl.reporting"},
    "faiss": {"fastssl.ops"},
}
ROOT_NAMES = {"fastssl", "fastssl._C", "fastssl.build_info", "fastssl.__version__"}
LAZY = {"torchvision", "timm", "faiss", "sklearn"}
LAZY_ROOMS = {"fastssl.estimators"}  # itself imported only when asked for


def imports(path: Path) -> list[tuple[str, bool]]:
    """Modules that a file imports, and whether it does so while it is being imported itself."""
    tree = ast.parse(path.read_text())
    found = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                found.extend((f"{child.module}.{alias.name}", top) for alias in child.names)
            visit(child, top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(tree, True)
    return found


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def room(path: Path) -> str:
    """fastssl.ops for a file under fastssl/ops, cli for one under cli."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:2]) if parts[0] == "fastssl" else parts[0]


@pytest.mark.parametrize("path", python_files("fastssl"), ids=lambda p: str(p.relative_to(ROOT)))
def test_import_directions(path):
    own = room(path)
    if own == "fastssl.__init__":
        allowed = set()
    else:
        assert own in KNOWS, f"{own} has no place in the plan: add it to KNOWS"
        allowed = KNOWS[own] | {own.removeprefix("fastssl.")}
    for module, _ in imports(path):
        parts = module.split(".")
        if parts[0] != "fastssl" or module in ROOT_NAMES:
            continue
        assert parts[1] in allowed, f"{path} imports {module}"


@pytest.mark.parametrize(
    "path", python_files("fastssl", "cli", "benchmarks"), ids=lambda p: str(p.relative_to(ROOT))
)
def test_library_imports(path):
    for module, at_load in imports(path):
        library = module.split(".")[0]
        if library in ONLY_IN:
            assert room(path) in ONLY_IN[library], f"{path} imports {library}"
        if room(path) not in LAZY_ROOMS:
            assert not (at_load and library in LAZY), f"{path} imports {library} at the top"
        assert library not in ("cli", "benchmarks", "tests"), f"{path} imports top-level {library}"


@pytest.mark.parametrize("op", fastssl.ops.__all__)
def test_one_name_six_files(op):
    module = importlib.import_module(f"fastssl.ops.{op}")
    assert hasattr(module, op), f"fastssl/ops/{op}.py has no {op}()"
    assert hasattr(module, f"{op}_reference"), f"fastssl/ops/{op}.py has no {op}_reference()"
    needed = [f"tests/ops/test_{op}.py", f"benchmarks/{op}.py"]
    kernel = getattr(module, "KERNEL", op)  # another op's kernel, or None for a composition
    if kernel is not None:
        needed += [
            f"csrc/kernels/cpu/{kernel}.cpp",
            f"csrc/kernels/cuda/{kernel}.cu",
            f"csrc/ops/{kernel}.cpp",
        ]
    missing = [name for name in needed if not (ROOT / name).exists()]
    assert not missing, f"{op} lacks {', '.join(missing)}"


def test_no_kernel_without_an_op():
    kernels = {path.stem for path in (ROOT / "csrc/ops").glob("*.cpp")}
    modules = [importlib.import_module(f"fastssl.ops.{op}") for op in fastssl.ops.__all__]
    owned = {getattr(module, "KERNEL", module.__name__.rpartition(".")[2]) for module in modules}
    assert kernels == owned - {None}


def test_every_schema_is_in_the_table_of_contents():
    """Registrations in csrc/ops implement exactly the schemas of library.cpp."""
    schemas = set(_quoted_after("m.def(", ROOT / "csrc/library.cpp"))
    registered = set()
    for path in (ROOT / "csrc/ops").glob("*.cpp"):
        registered |= set(_quoted_after("m.impl(", path))
    assert {schema.split("(")[0] for schema in schemas} == registered


def _quoted_after(call: str, path: Path) -> list[str]:
    return [piece.split('"')[1] for piece in path.read_text().split(call)[1:]]


def test_rooms_stay_small():
    limits = {".py": 400, ".cpp": 500, ".cu": 500, ".h": 500, ".cuh": 500}
    folders = ("fastssl", "cli", "benchmarks", "tests", "csrc")
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            if limit := limits.get(path.suffix):
                lines = len(path.read_text().splitlines())
                assert lines <= limit, (
                    f"{path.relative_to(ROOT)} has {lines} lines, at most {limit}"
                )


def test_nothing_installs_a_top_level_cli():
    """An installed package called cli, benchmarks, tests or csrc would collide with others'."""
    import importlib.metadata

    top_level = {file.parts[0] for file in importlib.metadata.files("fastssl") or []}
    assert not top_level & {"cli", "benchmarks", "tests", "csrc"}
    assert importlib.util.find_spec("fastssl.cli") is not None
