"""The Lua files: their headers are their signatures, and some things no script may do."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import forkresque
from forkresque.protocol.script import VARYING, Script, Value, load, pack

PACKAGE = Path(forkresque.__file__).parent
LUA = PACKAGE / "protocol" / "lua"
SCRIPTS = sorted(path.stem for path in LUA.glob("*.lua"))
FILES = sorted(str(path.relative_to(LUA)) for path in LUA.rglob("*.lua"))


def header(name: str) -> str:
    """Return the first comment of a script."""
    lines = (LUA / f"{name}.lua").read_text().splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(lines[:end])


def code(path: str) -> str:
    """Return a Lua file without its comments."""
    return re.sub(r"--.*", "", (LUA / path).read_text())


def values_for(script: Script) -> dict[str, Value]:
    """Return a value for each name: three of those with a star."""
    return {
        name.rstrip("*"): [f"{name}{number}" for number in "123"]
        if name[-1] == "*"
        else f"<{name}>"
        for name in (*script.keys, *script.args)
    }


def flat(value: Value) -> Sequence[bytes | str | int]:
    return [value] if isinstance(value, bytes | str | int) else value


# -- headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_loads_and_says_what_it_takes(name: str) -> None:
    script = load(name)

    assert script.keys
    assert re.search("^-- ARGV", header(name), re.MULTILINE)
    assert len(set(script.keys + script.args)) == len(script.keys) + len(script.args)
    assert load(name) is script


@pytest.mark.parametrize("name", SCRIPTS)
def test_only_the_last_name_of_a_list_has_a_star(name: str) -> None:
    script = load(name)

    assert not [one for names in (script.keys, script.args) for one in names[:-1] if "*" in one]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_header_says_what_is_returned_and_what_it_costs(name: str) -> None:
    assert re.search(r"\bReturns\b", header(name))
    assert "O(" in header(name), f"{name}.lua does not say what it costs, as in O(1)"


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_name_of_a_header_is_used(name: str) -> None:
    script = load(name)
    body = script.source.split("\n", len(script.keys) + len(script.args))[-1]
    body = re.sub(r"--.*", "", body)
    through_index = {"node_leader", "node_master", "ruby_master"} if name == "promote" else set()

    for one in {*script.keys, *script.args} - through_index:
        local = f"first_{one[:-1]}" if one.endswith("*") else one
        assert re.search(rf"\b{local}\b", body), f"{name}.lua never uses {one}"


def test_a_script_without_a_signature_does_not_load() -> None:
    with pytest.raises(KeyError, match="ARGV"):
        Script("x", "-- KEYS a\nreturn 1")


def test_a_signature_becomes_locals_in_front_of_the_parts_and_the_code() -> None:
    script = Script("x", "-- USES slot\n-- KEYS one list*\n-- ARGV other many*\nreturn 1")

    lines = script.source.splitlines()

    assert lines[:4] == [
        "local one = KEYS[1]",
        "local first_list = 2",
        "local other = ARGV[1]",
        "local first_many = 2",
    ]
    assert "local function held_job(held)" in lines
    assert lines[-1] == "return 1"


# -- calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_missing_or_unknown_name_is_a_type_error(name: str) -> None:
    script, values = load(name), values_for(load(name))

    for missing in values:
        with pytest.raises(TypeError, match=rf"{name}: missing \['{missing}'\], unknown \[\]"):
            script.pack(**{one: value for one, value in values.items() if one != missing})
    with pytest.raises(TypeError, match=rf"{name}: missing \[\], unknown \['kyes'\]"):
        script.pack(**values, kyes="x")


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_value_and_many_values_are_not_taken_for_each_other(name: str) -> None:
    script, values = load(name), values_for(load(name))

    for one in (*script.keys, *script.args):
        star = one.endswith("*")
        wrong: Value = "x" if star else ["x"]
        with pytest.raises(TypeError, match="takes a sequence" if star else "takes one value"):
            script.pack(**values | {one.rstrip("*"): wrong})


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_call_is_an_evalsha_with_keys_before_arguments(name: str) -> None:
    script, values = load(name), values_for(load(name))
    keys = [one for key in script.keys for one in flat(values[key.rstrip("*")])]
    args = [one for arg in script.args for one in flat(values[arg.rstrip("*")])]

    call = script.pack(**values)

    assert call.by_digest == pack("EVALSHA", script.digest, len(keys), *keys, *args)
    assert call.by_source == pack("EVAL", script.source, len(keys), *keys, *args)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_prepared_call_is_the_packed_call_byte_for_byte(name: str) -> None:
    script, values = load(name), values_for(load(name))
    single = [one for one in (*script.keys, *script.args) if not one.endswith("*")]

    for varying in (single, single[:1], single[-1:], single[::2], []):
        prepared = script.prepare(**values | dict.fromkeys(varying, VARYING))

        filled = prepared.fill(*(str(values[one]).encode() for one in varying))

        assert filled == script.pack(**values)


def test_a_prepared_call_wants_as_many_values_as_vary() -> None:
    script = load("unregister")
    prepared = script.prepare(**values_for(script) | {"slot": VARYING, "claim": VARYING})

    for values in ((), (b"a",), (b"a", b"b", b"c")):
        with pytest.raises(TypeError, match=f"2 values vary, got {len(values)}"):
            prepared.fill(*values)


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (b"", b"$0\r\n\r\n"),
        (b"a\r\n\0\xff", b"$5\r\na\r\n\0\xff\r\n"),
        ("é", b"$2\r\n\xc3\xa9\r\n"),
        ("\udcff", b"$1\r\n\xff\r\n"),
        (-12, b"$3\r\n-12\r\n"),
    ],
)
def test_any_bytes_text_and_number_can_be_a_value(value: bytes | str | int, packed: bytes) -> None:
    script = Script("x", "-- KEYS\n-- ARGV one many*\nreturn 1")

    call = script.pack(one=value, many=[value, value])

    assert call.by_digest.endswith(b"$1\r\n0\r\n" + packed * 3)
    assert call.by_digest.startswith(b"*6\r\n")


def test_a_star_takes_none_at_all() -> None:
    script = Script("x", "-- KEYS list*\n-- ARGV one many*\nreturn 1")

    assert script.pack(list=[], one=b"1", many=()).by_digest == pack(
        "EVALSHA", script.digest, 0, b"1"
    )


def calls_in_python() -> Iterator[tuple[str, ast.Call]]:
    """Yield each `load("name").pack(...)` and `.prepare(...)` of the package."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Call(
                            func=ast.Name(id="load"), args=[ast.Constant(value=str(name))]
                        ),
                        attr="pack" | "prepare",
                    )
                ):
                    yield name, node
                case _:
                    pass


CALLS = list(calls_in_python())


@pytest.mark.parametrize(
    ("name", "call"), CALLS, ids=[f"{name}-{call.lineno}" for name, call in CALLS]
)
def test_callers_in_python_use_the_names_of_the_header(name: str, call: ast.Call) -> None:
    script = load(name)
    wanted = {one.rstrip("*") for one in (*script.keys, *script.args)}
    given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}

    assert given <= wanted
    assert given == wanted or any(keyword.arg is None for keyword in call.keywords)


def test_every_script_has_a_caller() -> None:
    assert sorted({name for name, _ in CALLS}) == SCRIPTS


# -- what no script may do ---------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES)
def test_no_script_writes_json(path: str) -> None:
    assert "cjson.encode" not in code(path)
    assert "cmsgpack" not in code(path)


@pytest.mark.parametrize("path", FILES)
def test_no_script_builds_the_name_of_a_key(path: str) -> None:
    """The first argument of every command is a key of the header, whole."""
    text = code(path)
    calls = re.findall(r"redis\.p?call\(([^,()]+)(?:,\s*([^,()]*))?", text)
    assert len(calls) == len(re.findall(r"redis\.p?call\b", text)), "a call that cannot be read"

    for command, key in calls:
        if command.strip() == '"TIME"':
            continue
        assert re.fullmatch(r"[a-z_]+|KEYS\[[^\]]+\]", key.strip()), f"{command} {key}"
    for table in ("KEYS", *(one for name in SCRIPTS for one in load(name).keys)):
        name = rf"\b{table.rstrip('*')}\b" + (r"\[[^\]]*\]" if table == "KEYS" else "")
        assert not re.search(rf"{name}\s*\.\.", text), f"{table} is part of another text"
        assert not re.search(rf"\.\.\s*{name}", text), f"{table} is part of another text"


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_key_that_a_script_touches_is_declared(name: str) -> None:
    script = load(name)
    known = {name for name in script.keys if not name.endswith("*")}
    text = re.sub(r"--.*", "", script.source)
    known |= set(re.findall(r"local (\w+) = KEYS\[", text))
    for names in re.findall(r"function \w*\(([^)]*)\)", text):
        known |= set(names.split(", "))

    for command, key in re.findall(r"redis\.p?call\(([^,()]+),\s*([a-z_]+)\b", text):
        assert key in known, f"{command} touches {key}, which is no key of {name}"
