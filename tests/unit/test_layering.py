"""The folder listing is the architecture: what may import what, read from the syntax trees."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import forkresque

ROOT = Path(forkresque.__file__).parents[1]

# An import goes to a lower rank, or stays inside its package.
RANKS = {
    "errors": 0,
    "order": 0,
    "options": 1,
    "naming": 1,
    "course": 1,
    "configfile": 2,
    "configuration": 3,
    "embedded": 1,
    "embedded_guardian": 0,
    "processes": 1,
    "protocol": 2,
    "policy": 2,
    "events": 3,
    "scoreboard": 3,
    "plugins": 3,
    "connection": 3,
    "rota": 3,
    "post": 3,
    "idle": 4,
    "jobs": 4,
    "bulk": 4,
    "aftermath": 5,
    "producer": 5,
    "queue": 6,
    "inline": 6,
    "inquest": 5,
    "keeper": 5,
    "patience": 5,
    "performer": 5,
    "settling": 6,
    "enrolment": 6,
    "app": 7,
    "worker": 7,
    "promoter": 5,
    "neighbours": 5,
    "lookout": 6,
    "scheduler": 7,
    "metrics": 7,
    "supervisor": 8,
    "web": 9,
    "testing": 9,
    "integrations": 9,
    "cli": 10,
}
EXEMPT = {"forkresque", "forkresque.__main__"}  # the public names, and `python -m forkresque`
IMPURE = {
    "asyncio",
    "datetime",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
}


def name_of(path: Path) -> str:
    """Return the dotted name of a module; a package's is that of its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {name_of(path): path for path in sorted((ROOT / "forkresque").rglob("*.py"))}
RANKED = sorted(PATHS.keys() - EXEMPT)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(PATHS[module].read_text("utf-8"))


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of what runs, which `if TYPE_CHECKING:` does not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for otherwise in child.orelse:
                yield otherwise
                yield from running(otherwise)
        else:
            yield child
            yield from running(child)


def imports_of(module: str) -> Iterator[str]:
    """Yield what a module imports: modules, and `module.name` for names that are no modules."""
    package = module if PATHS[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in running(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """Return the modules of this project that a module imports."""
    found = set()
    for name in imports_of(module):
        if name.split(".")[0] != "forkresque" or name == "forkresque.__version__":
            continue
        while name not in PATHS:
            name = name.rpartition(".")[0]
        found.add(name)
    return found


def unit(module: str) -> str:
    """Return the module or package right below the root that a module belongs to."""
    return module.split(".")[1]


def is_package(name: str) -> bool:
    return (ROOT / "forkresque" / name).is_dir()


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules on a circle of imports, or nothing."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for imported in sorted(graph[module]):
            if found := walk(imported, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


@pytest.mark.parametrize("module", RANKED)
def test_every_module_has_a_rank(module: str) -> None:
    assert unit(module) in RANKS, f"give {module} a rank, here and in STYLE section 1"


@pytest.mark.parametrize("module", RANKED)
def test_an_import_goes_to_a_lower_rank_or_stays_inside_its_package(module: str) -> None:
    wrong = [
        f"{module} imports {imported}"
        for imported in sorted(own_imports(module))
        if imported in EXEMPT
        or (
            not (unit(imported) == unit(module) and is_package(unit(module)))
            and RANKS[unit(imported)] >= RANKS[unit(module)]
        )
    ]
    assert wrong == []


@pytest.mark.parametrize("package", sorted({unit(one) for one in RANKED if is_package(unit(one))}))
def test_no_imports_inside_a_package_go_round_in_a_circle(package: str) -> None:
    inside = [module for module in RANKED if unit(module) == package]

    found = circle({module: own_imports(module) & set(inside) for module in inside})

    assert not found, " → ".join(found)


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize("module", PATHS)
def test_only_the_protocol_imports_redis(module: str) -> None:
    talks = "redis" in {name.split(".")[0] for name in imports_of(module)}

    assert not talks or module.startswith("forkresque.protocol.")


@pytest.mark.parametrize("module", PATHS)
def test_only_one_module_forks(module: str) -> None:
    forks = [
        node
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute) and node.attr in ("fork", "forkpty")
    ]
    named = {"os.fork", "os.forkpty", "multiprocessing"} & set(imports_of(module))

    assert not (forks or named) or module == "forkresque.supervisor.child"


def test_that_module_does_fork() -> None:
    assert "os.fork()" in ast.unparse(tree("forkresque.supervisor.child"))


@pytest.mark.parametrize("module", [one for one in RANKED if unit(one) == "policy"])
def test_a_policy_knows_no_clock_no_chance_no_file_and_no_socket(module: str) -> None:
    assert used(imports_of(module)) == set()


def used(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names} & IMPURE
