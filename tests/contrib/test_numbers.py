"""The numbers in contrib/ against those of the program, and what every file must say."""

import re
from pathlib import Path
from typing import Any

import pytest

from forkresque.options import SupervisorOptions
from forkresque.policy.crew import ABORT_GRACE, BOOKS_GRACE
from forkresque.supervisor.lull import TICK
from forkresque.supervisor.master import IMPORT_TIME
from tests.contrib.files import COMPOSE, CONTAINER, CONTRIB, DEPLOYMENT, POD, Dockerfile, Unit

OPTIONS = SupervisorOptions()
LONGEST_DRAIN = OPTIONS.shutdown_timeout + ABORT_GRACE + BOOKS_GRACE
MARGIN = 5.0  # seconds, for a slow machine
ANSWER = 5.0  # seconds that a probe gives a master, apart from its own start

UNIT = Unit.read("forkresque.service")
DOCKERFILE = Dockerfile.read()


def seconds(text: str) -> float:
    """Return a length of time such as 35s."""
    found = re.fullmatch(r"(\d+)s?", text)
    assert found, f"{text!r} is not so many seconds"
    return float(found[1])


def test_every_manager_waits_for_the_longest_drain() -> None:
    stops = {
        "systemd": seconds(UNIT["TimeoutStopSec"]),
        "compose": seconds(COMPOSE["services"]["workers"]["stop_grace_period"]),
        "kubernetes": POD["terminationGracePeriodSeconds"],
    }

    assert set(stops.values()) == {OPTIONS.shutdown_timeout + 10}, "what the README says"
    assert all(stop >= LONGEST_DRAIN + MARGIN for stop in stops.values())


def test_a_drain_fits_into_what_heroku_gives() -> None:
    assert LONGEST_DRAIN < 30.0


def test_the_first_workers_may_use_their_time_to_boot() -> None:
    assert seconds(UNIT["TimeoutStartSec"]) >= IMPORT_TIME + OPTIONS.boot_timeout
    assert seconds(DOCKERFILE.health["start-period"]) >= IMPORT_TIME + OPTIONS.boot_timeout
    probe = CONTAINER["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 2 * IMPORT_TIME


def test_a_watchdog_waits_for_many_turns_of_the_loop() -> None:
    assert seconds(UNIT["WatchdogSec"]) / 2 >= 10 * TICK


def test_a_reload_is_not_taken_for_death() -> None:
    probe = CONTAINER["livenessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > IMPORT_TIME + ANSWER


@pytest.mark.parametrize("name", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_waits_for_an_answer(name: str) -> None:
    assert CONTAINER[name]["timeoutSeconds"] > ANSWER
    assert CONTAINER[name]["timeoutSeconds"] <= CONTAINER[name]["periodSeconds"] * 2


def test_the_image_and_its_users_agree() -> None:
    user, group = (int(part) for part in DOCKERFILE.last("USER").split(":"))
    runtime = DOCKERFILE.env["XDG_RUNTIME_DIR"]
    workers = COMPOSE["services"]["workers"]

    assert (POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"]) == (
        user,
        group,
    )
    assert f"{runtime}:mode=0700,uid={user},gid={group}" in workers["tmpfs"]
    assert {"name": "XDG_RUNTIME_DIR", "value": runtime} in CONTAINER["env"]
    assert {"name": "runtime", "mountPath": runtime} in CONTAINER["volumeMounts"]
    assert CONTAINER["readinessProbe"]["exec"]["command"] == DOCKERFILE.health_command


def test_the_readme_tells_the_numbers() -> None:
    text = (CONTRIB / "README.md").read_text()

    assert f"`--shutdown-timeout` ({OPTIONS.shutdown_timeout:g} s)" in text
    assert f"`--boot-timeout` ({OPTIONS.boot_timeout:g} s)" in text
    assert f"for which {IMPORT_TIME:g} s are allowed" in text
    for key in (
        "TimeoutStopSec",
        "TimeoutStartSec",
        "WatchdogSec",
        "TimeoutAbortSec",
        "RestartSec",
    ):
        row = next(
            line for line in text.splitlines() if line.startswith("|") and f"`{key}`" in line
        )
        assert re.search(rf"\b{UNIT[key]}\b", row.split("|")[2]), f"{key} is {UNIT[key]}: {row}"
    files = [path for path in CONTRIB.rglob("*") if path.is_file() and path.name != "README.md"]
    assert [path.name for path in files if str(path.relative_to(CONTRIB)) not in text] == []


# -- what a file must say, apart from numbers --------------------------------------------------

STRINGS = [str]
PROBE = {
    "exec": {"command": STRINGS},
    "periodSeconds": int,
    "timeoutSeconds": int,
    "failureThreshold": int,
}
DEPLOYMENT_SCHEMA: Any = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": str, "labels": {"app.kubernetes.io/name": str}},
    "spec": {
        "replicas": int,
        "selector": {"matchLabels": {"app.kubernetes.io/name": str}},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": int, "maxUnavailable": int},
        },
        "template": {
            "metadata": {"labels": {"app.kubernetes.io/name": str}},
            "spec": {
                "terminationGracePeriodSeconds": int,
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": int,
                    "runAsGroup": int,
                    "fsGroup": int,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": str,
                        "image": str,
                        "args": STRINGS,
                        "env": [dict],
                        "startupProbe": PROBE,
                        "livenessProbe": PROBE,
                        "readinessProbe": PROBE,
                        "resources": {
                            "requests": {"cpu": str, "memory": str},
                            "limits": {"cpu": str, "memory": str},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": STRINGS},
                        },
                        "volumeMounts": [{"name": str, "mountPath": str}],
                    }
                ],
                "volumes": [{"name": str, "emptyDir": dict}],
            },
        },
    },
}
COMPOSE_SCHEMA: Any = {
    "services": {
        "redis": {
            "image": str,
            "command": STRINGS,
            "volumes": STRINGS,
            "healthcheck": {"test": STRINGS, "interval": str, "timeout": str, "retries": int},
            "restart": str,
        },
        "workers": {
            "build": str,
            "command": STRINGS,
            "environment": {"FORKRESQUE_REDIS_URL": str},
            "depends_on": {"redis": {"condition": "service_healthy"}},
            "stop_signal": "SIGTERM",
            "stop_grace_period": str,
            "restart": "on-failure",
            "read_only": True,
            "tmpfs": STRINGS,
            "cap_drop": STRINGS,
            "security_opt": STRINGS,
            "cpus": int,
            "mem_limit": str,
        },
    },
    "volumes": {"redis": dict},
}


def misfits(value: object, schema: Any, where: str = "") -> list[str]:
    """Return where a value is not of the schema: a type, a value, a list of one kind, or fields."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{where} is no mapping"]
        wrong = [f"{where}.{name}" for name in sorted(schema.keys() ^ value.keys())]
        return wrong + [
            misfit
            for name in schema.keys() & value.keys()
            for misfit in misfits(value[name], schema[name], f"{where}.{name}")
        ]
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{where} is no list of something"]
        return [
            misfit
            for index, each in enumerate(value)
            for misfit in misfits(each, schema[0], f"{where}[{index}]")
        ]
    fits = type(value) is schema if isinstance(schema, type) else value == schema
    return [] if fits else [f"{where} is {value!r}"]


def test_the_files_have_every_field_and_no_other() -> None:
    assert misfits(DEPLOYMENT, DEPLOYMENT_SCHEMA) == []
    assert misfits(COMPOSE, COMPOSE_SCHEMA) == []


@pytest.mark.parametrize(
    ("value", "misfit"),
    [
        ({}, [".a"]),
        ({"a": [1], "b": 2}, [".b"]),
        ({"a": ["1"]}, [".a[0] is '1'"]),
        ({"a": []}, [".a is no list of something"]),
        ({"a": [True]}, [".a[0] is True"]),
    ],
)
def test_a_misfit_is_found(value: object, misfit: list[str]) -> None:
    assert misfits(value, {"a": [int]}) == misfit


def test_the_deployment_selects_its_own_pods_and_mounts_what_there_is() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]

    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {
        volume["name"] for volume in POD["volumes"]
    }


def test_what_can_restart_a_pod_does_not_ask_for_readiness() -> None:
    """Readiness depends on Redis, whose outage must not restart every pod there is."""
    for probe in ("startupProbe", "livenessProbe"):
        command = CONTAINER[probe]["exec"]["command"]
        assert "--live" in command
        assert "--check" not in command


def test_the_redis_of_compose_keeps_what_it_acknowledged() -> None:
    words = COMPOSE["services"]["redis"]["command"]

    assert words[words.index("--appendonly") + 1] == "yes"
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"


def test_the_image_starts_without_a_shell_as_nobody_special() -> None:
    assert DOCKERFILE.shell_forms == []
    assert DOCKERFILE.last("STOPSIGNAL") == "SIGTERM"
    assert DOCKERFILE.words("ENTRYPOINT") == ["forkresque"]
    assert DOCKERFILE.words("CMD") == ["start"]
    assert DOCKERFILE.last("USER") not in ("root", "0", "")
    assert re.fullmatch(r"python:3\.\d+-slim", DOCKERFILE.last("FROM"))


def test_no_path_of_contrib_is_of_a_machine_of_ours() -> None:
    for path in CONTRIB.rglob("*"):
        if path.is_file():
            assert not re.search(r"/(root|work|home/\w)", path.read_text()), path


def test_shell_forms_are_found(tmp_path: Path) -> None:
    file = tmp_path / "Dockerfile"
    file.write_text('FROM x\nRUN pip install \\\n  y\nHEALTHCHECK --interval=1s CMD z\nCMD ["a"]\n')

    assert Dockerfile(file).shell_forms == ["RUN pip install y", "HEALTHCHECK --interval=1s CMD z"]
