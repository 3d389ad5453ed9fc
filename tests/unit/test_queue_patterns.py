"""Which queues a list of patterns means."""

from random import Random

import pytest

from forkresque.policy.queues import expand, is_pattern, shown

EXISTING = ["mail", "math_low", "math", "a", "high", "math_high"]


@pytest.mark.parametrize(
    ("patterns", "queues"),
    [
        # Names keep the order that they were given in, and need not exist.
        (["mail", "a"], ["mail", "a"]),
        (["new", "mail"], ["new", "mail"]),
        ([], ["a", "high", "mail", "math", "math_high", "math_low"]),
        # What matches comes sorted, in the pattern's place.
        (["*"], ["a", "high", "mail", "math", "math_high", "math_low"]),
        (["math*", "a"], ["math", "math_high", "math_low", "a"]),
        (["mail", "*"], ["mail", "a", "high", "math", "math_high", "math_low"]),
        (["*", "mail"], ["a", "high", "mail", "math", "math_high", "math_low"]),
        (["ma?l"], ["mail"]),
        (["?"], ["a"]),
        (["[ah]*"], ["a", "high"]),
        (["[!ah]*"], ["mail", "math", "math_high", "math_low"]),
        (["nothing*"], []),
        # Braces.
        (["{mail,high}"], ["high", "mail"]),
        (["math{,_low}"], ["math", "math_low"]),
        (["math_{l,h}*"], ["math_high", "math_low"]),
        (["{ma{il,th},a}"], ["a", "mail", "math"]),
        (["{mail"], []),
        # Exclusions, wherever they stand.
        (["!mail"], ["a", "high", "math", "math_high", "math_low"]),
        (["!mail", "!math*"], ["a", "high"]),
        (["*", "!math*"], ["a", "high", "mail"]),
        (["!math*", "*"], ["a", "high", "mail"]),
        (["*", "!{mail,math}"], ["a", "high", "math_high", "math_low"]),
        (["mail", "a", "!mail"], ["a"]),
        # Each once, in the first place that it has.
        (["mail", "mail"], ["mail"]),
        (["math_low", "math*"], ["math_low", "math", "math_high"]),
        (["math*", "math_low"], ["math", "math_high", "math_low"]),
    ],
)
def test_a_list_of_patterns_means_queues_by_priority(
    patterns: list[str], queues: list[str]
) -> None:
    assert expand(patterns, EXISTING) == tuple(queues)


@pytest.mark.parametrize("name", ["a.b", "a+b", "a|b", "(a", "a\\", "^a$", "ü", "a b"])
def test_what_a_regular_expression_reads_otherwise_is_an_ordinary_character(name: str) -> None:
    assert expand([f"{name[0]}*"], [name]) == (name,)
    assert expand([f"{name}*"], [name, "axb"]) == (name,)
    assert not is_pattern(name)


def test_a_pattern_matches_whole_names_and_knows_case() -> None:
    assert expand(["?ail"], ["mail", "email", "mails", "Mail", "MAIL"]) == ("Mail", "mail")


def test_a_name_with_a_line_end_matches_as_a_whole() -> None:
    assert expand(["*b"], ["a\nb", "b\n"]) == ("a\nb",)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("mail", False), ("m*", True), ("m?", True), ("[m]", True), ("{m}", True), ("!m", True)],
)
def test_wildcards_and_exclusions_are_patterns(text: str, answer: bool) -> None:  # noqa: FBT001
    assert is_pattern(text) is answer


@pytest.mark.parametrize(
    ("patterns", "id_part"),
    [
        (["high", "math*"], ("high", "math*")),
        (["*", "!math"], ("*",)),
        (["!math"], ("*",)),
        ([], ("*",)),
        (["b", "!c", "a"], ("b", "a")),
    ],
)
def test_a_worker_id_shows_all_but_the_exclusions(
    patterns: list[str], id_part: tuple[str, ...]
) -> None:
    assert shown(patterns) == id_part


@pytest.mark.parametrize("seed", range(50))
def test_expansion_is_stable_whatever_the_lists(seed: int) -> None:
    chance = Random(seed)
    pieces = ["a", "b", "ab", "*", "?", "a*", "*b", "{a,b}", "!a", "!*b", "![b]", "c"]
    for _ in range(200):
        patterns = chance.choices(pieces, k=chance.randint(0, 5))
        existing = {"".join(chance.choices("abc", k=chance.randint(1, 3))) for _ in range(6)}

        queues = expand(patterns, existing)

        assert expand(patterns, sorted(existing, reverse=True)) == queues
        assert len(set(queues)) == len(queues)
        assert set(queues) <= existing | set(patterns)
        assert not {"a"} & set(queues) or "!a" not in patterns
        assert expand(queues, []) == queues or not queues
