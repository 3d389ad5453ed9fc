"""What was counted, held against the budget; a difference shows the new table, to be pasted."""

from collections import Counter
from collections.abc import Mapping


def assert_cost(what: str, counted: Mapping[str, int], expected: Mapping[str, int]) -> None:
    """Fail unless exactly as much was counted as `tests/cost/budget.py` says under `what`."""
    if dict(counted) == dict(expected):
        return
    more = Counter(counted)
    more.subtract(expected)
    changes = ", ".join(f"{name} {by:+d}" for name, by in sorted(more.items()) if by)
    raise AssertionError(
        f"{what} costs something else than tests/cost/budget.py says: {changes}\n"
        f"If that is meant, write there, with the reason:\n{table(what, counted)}"
    )


def table(what: str, counted: Mapping[str, int]) -> str:
    """Return the lines of a budget."""
    lines = "".join(f'        "{name}": {number},\n' for name, number in sorted(counted.items()))
    return f'    "{what}": {{\n{lines}    }},'
