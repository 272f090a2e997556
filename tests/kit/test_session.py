"""A whole run on small written-out checks: outcomes, gates, selection, exit codes, verdict."""

import importlib.util
import json

import pytest

pytest_plugins = ["pytester"]

HEADER = """
import pytest
from gaugeblock.conformance.check import check
from gaugeblock.conformance.outcome import inconclusive, skipped, unsupported
from gaugeblock.fixtures.errors import EnvironmentFault, TargetFault
"""


@pytest.fixture
def kit(pytester):
    """Write checks into layer folders and run them as an installed user would."""

    class Kit:
        def write(self, layer, check_id, body, *, level="core", gate=False, feature="thing"):
            slug = check_id.lower().replace("-", "_")
            folder = pytester.path / layer
            folder.mkdir(exist_ok=True)
            (folder / f"test_{slug}_made.py").write_text(
                HEADER + f"\n@check({check_id!r}, feature={feature!r}, bound='none', level={level!r}, gate={gate})\n"
                f"def test_{slug}():\n    '''Title of {check_id}.\n\n    Look here first.\n    '''\n    {body}\n"
            )

        def run(self, *args):
            result = pytester.runpytest_subprocess(
                "--gb", "--import-mode=importlib", "--gb-out", "out", *args, timeout=60
            )
            path = pytester.path / "out" / "verdict.json"
            verdict = json.loads(path.read_text()) if path.exists() else None
            return result, verdict

    return Kit()


def outcome(verdict, check_id):
    return {c["id"]: c for c in verdict["checks"]}[check_id]["outcome"]


@pytest.mark.parametrize(
    ("body", "expected", "result", "code"),
    [
        ("assert 1 + 1 == 2", "passed", "conformant", 0),
        ("assert 1 + 1 == 3", "failed", "nonconformant", 1),
        ("raise TargetFault('no answer')", "failed", "nonconformant", 1),
        ("raise KeyError('oops')", "error", "error", 4),
        ("unsupported('claim it')", "unsupported", "inconclusive", 3),
        ("inconclusive('noise 9%')", "inconclusive", "inconclusive", 3),
        ("skipped('no privilege')", "skipped", "partial", 3),
        ("pytest.skip('plain')", "skipped", "partial", 3),
        ("raise ExceptionGroup('two', [AssertionError('a'), AssertionError('b')])", "failed", "nonconformant", 1),
    ],
)
def test_what_a_check_raises_decides_outcome_result_and_exit_code(kit, body, expected, result, code):
    kit.write("kernels", "KER-901", body)
    run, verdict = kit.run()
    assert outcome(verdict, "KER-901") == expected
    assert verdict["result"] == result
    assert run.ret == code
    assert verdict["footer"] == {"complete": True, "checks": 1}


def test_environment_fault_ends_the_run_with_one_line_and_a_footer(kit):
    kit.write("kernels", "KER-901", "raise EnvironmentFault('nothing answers at http://x: start it')")
    kit.write("kernels", "KER-902", "assert True")
    run, verdict = kit.run()
    assert run.ret == 4
    assert verdict["result"] == "error"
    assert verdict["message"] == "nothing answers at http://x: start it"
    assert [c["id"] for c in verdict["checks"]] == ["KER-901"]
    assert verdict["footer"]["complete"] is False


def test_failed_gate_blocks_its_layer_and_what_depends_on_it_but_no_other(kit):
    kit.write("engine", "ENG-901", "assert False, 'gate'", gate=True)
    kit.write("engine", "ENG-900", "assert True")
    kit.write("load", "LOAD-901", "assert True")
    kit.write("kv", "KV-901", "assert True")
    run, verdict = kit.run()
    assert outcome(verdict, "ENG-901") == "failed"
    assert outcome(verdict, "ENG-900") == outcome(verdict, "LOAD-901") == "blocked"
    assert outcome(verdict, "KV-901") == "passed"
    assert verdict["first_failing_layer"] == "engine"
    assert run.ret == 1


def test_lowest_failing_layer_is_named(kit):
    kit.write("router", "RTR-901", "assert False")
    kit.write("prefill", "PRE-901", "assert False")
    _, verdict = kit.run()
    assert verdict["first_failing_layer"] == "prefill"


def parametrize(pytester, name, values):
    """Give a written check one variant a value."""
    path = next(pytester.path.glob(f"*/{name}"))
    text = path.read_text().replace("\ndef test_", f"\n@pytest.mark.parametrize('value', {values})\ndef test_")
    path.write_text(text.replace("():", "(value):"))


def test_an_expected_failure_does_not_fail_the_run(kit, pytester):
    kit.write("kernels", "KER-001", "assert value != 1, 'one'")
    parametrize(pytester, "test_ker_001_made.py", [0, 1, 2])
    kit.write("kernels", "KER-002", "assert True")
    pytester.path.joinpath("known.txt").write_text("# reported upstream\n\nKER-001: known, issue 7\n")
    run, verdict = kit.run("--gb-expected-failures", "known.txt")
    assert verdict["result"] == "conformant"
    assert verdict["checks"][0]["outcome"] == "failed"
    assert verdict["checks"][0]["expected_failure"] == "known, issue 7"
    assert run.ret == 0


def test_an_expected_failure_that_passes_fails_the_run(kit, pytester):
    kit.write("kernels", "KER-001", "assert True")
    pytester.path.joinpath("known.txt").write_text("KER-001: known, issue 7\n")
    run, verdict = kit.run("--gb-expected-failures", "known.txt")
    assert verdict["result"] == "nonconformant"
    assert "passes, but is listed as an expected failure (known, issue 7)" in verdict["checks"][0]["message"]
    assert run.ret == 1


def test_an_expected_failure_of_an_unknown_check_is_refused(kit, pytester):
    kit.write("kernels", "KER-901", "assert False")
    pytester.path.joinpath("known.txt").write_text("KER-901: known\n")
    run, verdict = kit.run("--gb-expected-failures", "known.txt")
    assert run.ret == 2
    assert verdict is None
    run.stderr.fnmatch_lines(["*unknown check 'KER-901'*Did you mean 'KER-0*Legal:*"])


def test_skip_needs_a_reason(kit):
    kit.write("kernels", "KER-901", "assert True")
    run, _ = kit.run("--gb-skip", "KER-901")
    assert run.ret == 2
    run.stderr.fnmatch_lines(["*a skip needs a reason*"])


def test_expected_failures_that_are_no_text_are_refused_with_one_line(kit, pytester):
    kit.write("kernels", "KER-001", "assert False")
    pytester.path.joinpath("known.txt").write_bytes(b"KER-001: caf\xe9\n")
    run, verdict = kit.run("--gb-expected-failures", "known.txt")
    assert (run.ret, verdict) == (2, None)
    assert len(run.outlines + run.errlines) == 1
    run.stderr.fnmatch_lines(["*cannot read the expected failures 'known.txt': it is no UTF-8 text*"])


def test_expected_failures_may_begin_with_a_byte_order_mark(kit, pytester):
    kit.write("kernels", "KER-001", "assert False")
    pytester.path.joinpath("known.txt").write_bytes("\ufeffKER-001: known".encode())
    run, _ = kit.run("--gb-expected-failures", "known.txt")
    assert run.ret == 3, "all that ran failed as expected: nothing was shown"


@pytest.mark.parametrize(
    ("module", "code", "said"),
    [
        ("math", 2, "Exit: gaugeblock: --gb-kernels: 'math' holds none of the ops"),
        ("no.such.ops", 2, "Exit: gaugeblock: no module 'no.such.ops'"),
        ("gaugeblock.fixtures.peers.liger_kernel", 4, "pip install liger-kernel"),
    ],
)
def test_kernels_that_cannot_be_had_end_the_run_before_its_first_check(kit, module, code, said):
    """The third stands for a library that is not installed: on a machine that has it there is nothing to see."""
    if code == 4 and importlib.util.find_spec("liger_kernel"):
        pytest.skip(reason="Liger is installed")
    kit.write("kernels", "KER-001", "pass")
    run, verdict = kit.run("--gb-kernels", module)
    assert (run.ret, verdict) == (code, None)
    assert said in run.stderr.str() + run.stdout.str()
    assert len(run.outlines + run.errlines) == 1


def test_claimed_feature_that_does_not_run_is_a_failure(kit, pytester):
    kit.write("kernels", "KER-901", "unsupported('not here')", feature="chat")
    kit.write("kernels", "KER-902", "unsupported('not this one') if value else None", feature="chat")
    parametrize(pytester, "test_ker_902_made.py", [0, 1])
    run, verdict = kit.run("--gb-claim", "chat")
    assert outcome(verdict, "KER-901") == "failed"
    assert outcome(verdict, "KER-902") == "passed", "one variant is unsupported, the feature is there"
    assert run.ret == 1


def test_deselected_core_check_makes_the_verdict_partial(kit):
    kit.write("kernels", "KER-901", "assert True")
    kit.write("kernels", "KER-902", "assert True")
    run, verdict = kit.run("-k", "901")
    assert verdict["result"] == "partial"
    assert verdict["message"] == "1 of 2 core checks in scope were not selected"
    assert run.ret == 3


def test_skipped_extended_check_leaves_the_verdict_conformant(kit):
    kit.write("kernels", "KER-901", "assert True")
    kit.write("kernels", "KER-902", "skipped('not installed')", level="extended")
    run, verdict = kit.run()
    assert verdict["result"] == "conformant"
    assert run.ret == 0


@pytest.mark.parametrize(
    ("body", "result", "code"),
    [
        ("assert True", "conformant", 1),
        ("inconclusive('noise 9%')", "inconclusive", 1),
        (None, "inconclusive", 1),
        ("raise KeyError('oops')", "error", 4),
    ],
    ids=["beside a pass", "beside an inconclusive check", "alone", "beside the kit's own trouble"],
)
def test_a_failure_among_the_users_own_tests_stays_one(kit, pytester, body, result, code):
    if body:
        kit.write("kernels", "KER-901", body)
    pytester.makepyfile(test_mine="def test_mine():\n    assert False\n")
    run, verdict = kit.run()
    assert verdict["result"] == result
    assert run.ret == code


def test_the_users_own_tests_that_pass_do_not_hide_an_inconclusive_run(kit, pytester):
    pytester.makepyfile(test_mine="def test_mine():\n    assert True\n")
    run, _ = kit.run()
    assert run.ret == 3


def test_a_run_that_xdist_would_divide_is_refused_with_the_way_out(kit):
    kit.write("kernels", "KER-901", "assert False")
    run, verdict = kit.run("-n", "2")
    assert (run.ret, verdict) == (2, None)
    assert len(run.outlines + run.errlines) == 1
    run.stderr.fnmatch_lines(["*pytest-xdist: leave -n out*run the layers as separate pytest calls"])
    run, verdict = kit.run("-n", "0")
    assert (run.ret, verdict["result"]) == (1, "nonconformant")


def test_warnings_that_are_errors_do_not_end_a_run_that_looks_into_the_catalogue(kit):
    kit.write("kernels", "KER-901", "assert True")
    run, verdict = kit.run("-W", "error", "--gb-claim", "chat")
    assert "INTERNALERROR" not in run.stdout.str() + run.stderr.str()
    assert (run.ret, verdict["result"]) == (0, "conformant")


def test_a_verdict_that_cannot_be_written_is_said_behind_the_result(kit, pytester):
    kit.write("kernels", "KER-901", "assert True")
    (pytester.path / "out" / "verdict.json.tmp").mkdir(parents=True)
    run, verdict = kit.run()
    assert (run.ret, verdict) == (4, None)
    run.stdout.fnmatch_lines(
        ["cannot write out/verdict.json: Is a directory; name another folder with --gb-out", "result: conformant"]
    )


def test_another_plugins_report_that_cannot_be_written_does_not_cost_the_verdict(kit, pytester):
    kit.write("kernels", "KER-901", "assert True")
    pytester.makeconftest(
        "def pytest_sessionfinish():\n    raise OSError(28, 'No space left on device', 'junit.xml')\n"
    )
    run, verdict = kit.run()
    assert (run.ret, verdict["result"]) == (4, "conformant")
    run.stdout.fnmatch_lines(["cannot write junit.xml: No space left on device", "result: conformant"])


def test_what_the_user_could_have_named_is_said_beside_the_result(kit, pytester):
    kit.write("router", "RTR-901", "assert True")
    kit.write("router", "RTR-902", "router_lab()", feature="breakers")
    path = pytester.path / "router" / "test_rtr_902_made.py"
    path.write_text(path.read_text().replace("():", "(router_lab):"))
    run, verdict = kit.run("--gb-router-url", "http://127.0.0.1:9")
    assert (run.ret, verdict["result"]) == (0, "conformant")
    assert outcome(verdict, "RTR-902") == "unsupported"
    assert verdict["message"].startswith("router: 1 of 2 core checks could be made; a running router meets scripted")
    assert "--gb-router-workers" in verdict["message"]
    run, verdict = kit.run("--gb-router-url", "http://127.0.0.1:9", "--gb-claim", "breakers")
    assert (run.ret, outcome(verdict, "RTR-902")) == (1, "failed")


def test_without_options_the_plugin_is_inert(pytester):
    pytester.makepyfile(
        "def test_mine(pytestconfig):\n    assert not pytestconfig.pluginmanager.has_plugin('gaugeblock-session')\n"
    )
    run = pytester.runpytest_subprocess("--strict-markers", timeout=60)
    run.assert_outcomes(passed=1)
    assert run.ret == 0


def test_checks_without_a_target_are_refused_with_the_way_to_name_one(kit, pytester):
    run = pytester.runpytest_subprocess("--pyargs", "gaugeblock.conformance.load", timeout=60)
    run.stdout.fnmatch_lines(["*no target named. Give --gb*--gb-router NAME*--gb-kv MODULE*--gb-int8 MODULE*"])
    assert run.ret == 2


def test_a_check_whose_names_disagree_is_refused(kit, pytester):
    folder = pytester.path / "kernels"
    folder.mkdir()
    (folder / "test_ker_901_made.py").write_text(
        HEADER + "@check('KV-901', feature='x', bound='none')\ndef test_ker_902():\n    'Only a title'\n"
    )
    run, verdict = kit.run()
    assert verdict["result"] == "error"
    assert run.ret == 4
    text = run.stdout.str()
    for complaint in ("id must be KER-NNN", "function must be named test_kv_901", "docstring needs a title line"):
        assert complaint in text


CALL = "Wire('http://127.0.0.1:9', Limits()).call('GET', '/')"
IN_ANOTHER_ERROR = f"""try:
        {CALL}
    except TargetFault as fault:
        raise AssertionError('no stream') from fault"""


@pytest.mark.parametrize(
    "body",
    [CALL, IN_ANOTHER_ERROR, f"parallel([lambda: {CALL}] * 2)"],
    ids=["in the open", "behind another error", "in a thread"],
)
def test_a_target_that_dies_is_said_once_and_the_rest_is_blocked(kit, pytester, body):
    kit.write(
        "engine",
        "ENG-901",
        f"from gaugeblock.fixtures.targets.wire import Limits, Wire\n"
        f"    from gaugeblock.fixtures.targets.parallel import parallel\n    {body}",
    )
    kit.write("engine", "ENG-902", "assert True")
    for path in (pytester.path / "engine").glob("test_*.py"):
        path.write_text(path.read_text().replace("():", "(engine_url):"))
    run, verdict = kit.run()
    assert outcome(verdict, "ENG-901") == "failed"
    assert outcome(verdict, "ENG-902") == "blocked"
    assert "the target died during ENG-901" in verdict["checks"][1]["message"]
    assert run.ret == 1


def test_destructive_checks_run_after_all_others_on_every_target(kit, pytester):
    body = "open('order.txt', 'a').write({!r} + engine_url + chr(10))"
    for check_id, layer in (("ENG-901", "engine"), ("ENG-902", "engine"), ("LOAD-901", "load")):
        kit.write(layer, check_id, body.format(f"{check_id} "))
    for path in pytester.path.glob("*/test_*.py"):
        text = path.read_text().replace("():", "(engine_url):")
        path.write_text(text.replace("gate=False)", "gate=False, destructive=True)") if "901" in path.name else text)
    (pytester.path / "load" / "test_load_901_made.py").write_text(
        (pytester.path / "load" / "test_load_901_made.py").read_text().replace(", destructive=True", "")
    )
    kit.run("--gb-engine-url", "http://a", "--gb-engine-url", "http://b")
    assert (pytester.path / "order.txt").read_text().split("\n")[:-1] == [
        "ENG-902 http://a",
        "ENG-902 http://b",
        "LOAD-901 http://a",
        "LOAD-901 http://b",
        "ENG-901 http://a",
        "ENG-901 http://b",
    ]
