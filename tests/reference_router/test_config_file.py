"""The configuration file: what it can hold, and that each mistake is named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gaugeblock.reference.router.config_file import load_config, parse_rules

WHOLE = """\
[router]
policy = "least_load"
idle_timeout = "none"
host = "127.0.0.2"
port = 8080

[[workers]]
url = "http://10.0.0.1:30000"
models = ["a"]

[[workers]]
url = "http://10.0.0.2:30000"
pool = "next"
tier = "cpu"

[[rules]]
name = "long"
match = { min_bytes = 20000, headers = { "x-sla" = "gold" } }
pool = "next"
band = "low"

[[rules]]
name = "rest"
[rules.match]
model = "a"

[[experiments]]
name = "canary"
variants = [{ name = "new", percent = 5, pool = "next" }]
"""


def write(folder: Path, text: str) -> str:
    path = folder / "router.toml"
    path.write_text(text)
    return str(path)


def test_a_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path, WHOLE)
    config, host, port = load_config(path, policy="random")
    assert (host, port, config.config_file, config.policy, config.idle_timeout) == (
        *("127.0.0.2", 8080, path),
        *("random", None),
    )
    assert [spec.pool for spec in config.specs] == ["default", "next"]
    assert [rule.name for rule in config.rules] == ["long", "rest"]
    assert config.rules[0].match.headers == {"x-sla": ("gold",)}
    assert config.rules[1].match.model == ("a",)
    assert config.experiments[0].variants[0].percent == 5


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('policy = "least_load"', 'policy = "leastload"', 2, "policy must be one of cache_aware, "),
        ('policy = "least_load"', "retrys = 1", 2, "[router] has no field 'retrys'; its fields are host, port, "),
        ("port = 8080", 'port = "x"', 5, "port must be a whole number >= 0 and <= 65535"),
        ('url = "http://10.0.0.1:30000"', 'url = "10.0.0.1"', 7, "worker 1 ('10.0.0.1'): a worker URL must look like"),
        ('tier = "cpu"', 'tier = "tpu"', 14, "worker 2 ('http://10.0.0.2:30000'): tier must be one of gpu, cpu"),
        ('tier = "cpu"', 'teir = "cpu"', 14, "a worker has no field 'teir'; its fields are url, role, tier"),
        (
            'pool = "next"\nband',
            'pool = "nxt"\nband',
            19,
            "rule 1 ('long'): pool must be one of default, next; got 'nxt'",
        ),
        ('band = "low"', 'band = "urgent"', 20, "rule 1 ('long'): band must be one of high, normal, low; got 'urgent'"),
        ("min_bytes", "min_byte", 18, "rule 1 ('long'): match has no field 'min_byte'; its fields are model, path"),
        ('name = "rest"', 'name = "long"', 23, "rule 2 ('long'): name must not be given twice"),
        ('model = "a"', "model = 7", 25, "rule 2 ('rest'): model must be a name or a list of names, got 7"),
        ("percent = 5", "percent = 101", 29, "experiment 1 ('canary'): percent must be a number >= 0 and <= 100"),
        ('pool = "next" }', 'pool = "lost" }', 29, "experiment 1 ('canary'): pool must be one of default, next"),
        ('variants = [{ name = "new", percent = 5, pool = "next" }]', "", 27, "needs either variants or a shadow"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert old in WHOLE
    path = write(tmp_path, WHOLE.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_config(path)
    assert f"{path}, line {line}: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[router\n", "is not TOML: Expected ']'"),
        ("[routers]\n", "there is no section 'routers'; the sections are router, workers, rules, experiments"),
        ("router = 1\n", "router must be a table, [router], got 1"),
        ("[workers]\nurl = 1\n", "workers must be a list of tables"),
        ("workers = [1]\n", "worker 1: a worker must be a table, got 1"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config(write(tmp_path, text))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"cannot read /nowhere/router\.toml: "):
        load_config("/nowhere/router.toml")


def test_rules_alone_may_come_without_the_rest() -> None:
    rules, experiments = parse_rules('[[rules]]\nname = "a"\npool = "p"\n', "the body", {"p"})
    assert [rule.name for rule in rules] == ["a"]
    assert experiments == ()
    with pytest.raises(ValueError, match="there is no section 'router'; the sections are rules, experiments"):
        parse_rules("[router]\n", "the body", {"p"})
