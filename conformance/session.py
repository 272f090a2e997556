"""One run of the kit inside pytest: selects and orders checks, holds the gates, collects results."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from gaugeblock.conformance.beside import Fork, Sender, divided, fork, worthwhile
from gaugeblock.conformance.check import LAYERS, Check, load_checks
from gaugeblock.conformance.contradictions import refuse_contradictions, refuse_idle_names
from gaugeblock.conformance.golden_update import require_embedded, update_and_tell
from gaugeblock.conformance.interrupts import keep_interrupts
from gaugeblock.conformance.out import prepare_out
from gaugeblock.conformance.outcome import Beyond, Blocked, NotRun, Outcome, Untried
from gaugeblock.conformance.plugin import OPTIONS, TARGETS
from gaugeblock.conformance.results import Result, describe, judge
from gaugeblock.conformance.selection import Selection, parse_skips, read_expected_failures
from gaugeblock.conformance.verdict import EXIT_CODES, VERDICT, Run, build_verdict, write_outputs
from gaugeblock.fixtures.errors import EnvironmentFault, KitError, TargetGone, legal_name
from gaugeblock.fixtures.faults.record import find_fault, planted
from gaugeblock.fixtures.targets.int8_target import try_int8
from gaugeblock.fixtures.targets.kv_target import try_kv
from gaugeblock.fixtures.targets.options import TargetOptions
from gaugeblock.fixtures.targets.probe import FEATURES as ENGINE_FEATURES
from gaugeblock.fixtures.targets.router_launch import FEATURES as ROUTER_FEATURES
from gaugeblock.fixtures.targets.router_launch import LAUNCHERS, command_launcher
from gaugeblock.fixtures.targets.router_running import parse_workers

DEPENDS = {"load": ("engine",)}
"""Layers whose checks use another layer's target: that layer's gate blocks them too."""

PREFIX = "--gb-"  # how options are spelled under pytest

PARAMETER = "engine_url"  # the fixture parameter that tells targets of one check apart


class Progress(Protocol):
    """Who is told while the run goes on (the CLI's terminal)."""

    def started(self, checks: list[Check]) -> None:
        """The checks about to run, in order."""

    def finished(self, result: Result) -> None:
        """One run of one check has ended."""


class KitSession:
    """The pytest plugin object of one run."""

    def __init__(self, options: TargetOptions, selection: Selection, out: str | None) -> None:
        self.options = options
        self.selection = selection
        self.out = out
        self.progress: Progress | None = None
        self.prefix = PREFIX
        self.apart: str | None = None  # a layer that may run in a process of its own beside the others
        self.beside: Fork | Sender | None = None
        self.run = Run(options, selection)
        self._resources = ExitStack()
        self._config: pytest.Config | None = None

    @classmethod
    def from_config(cls, config: pytest.Config) -> KitSession:
        """Read pytest's options; bad ones end the run with one line and exit code 2, what is missing here with 4."""
        try:
            _refuse_workers(config)
            options, selection = read_options(config.getoption)
            prepare_out(config.getoption("gb_out"), [VERDICT])
        except KitError as error:
            missing = isinstance(error, EnvironmentFault)
            text = _spelled(str(error), PREFIX)
            pytest.exit(f"gaugeblock: {text}", returncode=EXIT_CODES["error" if missing else "usage"])
        config.stash[OPTIONS] = options
        config.stash[TARGETS] = {}
        session = cls(options, selection, config.getoption("gb_out"))
        session.run.targets = config.stash[TARGETS]
        session._config = config
        return session

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Plant a fault that lives in this process before any check module binds what it patches."""
        keep_interrupts()  # here, for pytest sets a hook of its own while it configures
        if session.config.getoption("gb_update_golden"):
            update_and_tell(self.selection.layers)
        if self.options.fault and find_fault(self.options.fault).place == "process":
            self._resources.enter_context(planted(self.options.fault))

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, None, None]:
        """Keep the checks in scope, lowest layer first, its gate first; other tests come behind them."""
        unwanted = {item: None for item in items if not self._keeps(item)}
        items[:] = [item for item in items if item not in unwanted]
        if unwanted:
            config.hook.pytest_deselected(items=list(unwanted))
        yield
        items.sort(key=_order)  # last, for pytest itself groups items by the parameters of their fixtures

    def _keeps(self, item: pytest.Item) -> bool:
        check = check_of(item)
        if check is None:
            return True
        if check.layer not in self.selection.layers:
            return False
        named = {"kv": (self.options.kv, "kv_target"), "hybrid": (self.options.int8, "int8_linear")}
        module, fixture = named.get(check.layer, (None, ""))
        if module and fixture not in getattr(item, "fixturenames", ()):
            return False  # it looks inside of the reference, which is not what the user named
        if check.level == "core":
            self.run.core.add(check.id)
        return self.selection.wants(check)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A check module that cannot be imported is the environment's fault, not a smaller catalogue."""
        if report.failed and self.run.abort is None:
            self.run.abort = f"cannot load {report.nodeid}: {str(report.longrepr).strip().splitlines()[-1]}"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Announce what will run, once what runs apart is on its way."""
        checks = [c for c in map(check_of, session.items) if c is not None]
        if self.apart is not None:
            self._divide(session, self.apart)
        if self.progress is not None:
            self.progress.started(checks)

    def _divide(self, session: pytest.Session, layer: str) -> None:
        """Let a fork run the checks of ``layer``, or half of them where there is nothing else to do meanwhile."""
        ours, apart = divided([(item, check_of(item)) for item in session.items], layer)
        if not worthwhile(ours, apart):
            return
        known = {check.id: check for check in map(check_of, apart) if check is not None}
        self.beside = fork(session.config, lambda kind, value: self._take(session, known, kind, value))
        if isinstance(self.beside, Sender):
            self.progress = self.beside
            self.beside.mute(item.nodeid for item in apart if item in ours)
            session.items[:] = apart
        else:
            session.items[:] = ours

    def _take(self, session: pytest.Session, known: dict[str, Check], kind: str, value: Any) -> None:
        """Take in a message of the fork as if it had happened here."""
        if kind == "report":
            hook = session.config.hook
            report = hook.pytest_report_from_serializable(config=session.config, data=value)
            hook.pytest_runtest_logreport(report=report)
        elif kind == "result":
            result = Result(known[value[0]], **value[1])
            self.run.results[(result.check.id, result.target)] = result
            if self.progress is not None and self.run.abort is None:
                self.progress.finished(result)
        elif kind == "end":
            state, targets = value
            self.run.abort = self.run.abort or state["abort"]
            self.run.interrupted |= state["interrupted"]
            self.run.foreign_failure |= state["foreign_failure"]
            self.run.targets.update(targets)
        elif not self.run.interrupted:
            layers = ", ".join(sorted({check.layer for check in known.values()}))
            self.run.abort = self.run.abort or f"the process that ran the checks of {layers} died"
        if self.run.abort is not None:
            session.shouldstop = self.run.abort

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Wait for what runs apart before the run counts as over."""
        ended = False
        try:
            outcome = yield
            ended = True
            return outcome
        except KeyboardInterrupt:
            self.pytest_keyboard_interrupt()  # now, for what becomes of the fork is no error any more
            raise
        finally:
            if isinstance(self.beside, Fork):
                if ended and self.run.abort is None:
                    self.beside.drain()
                else:
                    self.beside.interrupt()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Pass a fork's report on to who writes reports."""
        if isinstance(self.beside, Sender) and self._config is not None:
            self.beside.report(self._config, report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip what the user skips, block what stands on a failed gate."""
        check = check_of(item)
        if check is None:
            return
        if check.id in self.selection.skips:
            raise NotRun(f"skipped by the user: {self.selection.skips[check.id]}")
        if has_target(item) and target_of(item) in self.run.gone:
            raise Blocked(f"blocked: the target died during {self.run.gone[target_of(item)]}")
        for layer in (check.layer, *DEPENDS.get(check.layer, ())):
            gate = self.run.failed_gates.get((layer, target_of(item)))
            if gate is not None and gate != check.id:
                raise Blocked(f"blocked: the gate {gate} failed")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[Any]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn every phase of a check into an outcome."""
        report = yield
        check = check_of(item)
        if check is None:
            self.run.foreign_failure |= report.failed
            return report
        result = self.run.result(check, target_of(item))
        result.seconds += call.duration
        error = call.excinfo.value if call.excinfo is not None else None
        result.beyond |= isinstance(error, Beyond)
        result.untried |= isinstance(error, Untried)
        if isinstance(error, KitError):  # no check can go on from there
            self.run.abort = describe(error)
            item.session.shouldstop = self.run.abort
        if has_target(item) and _saw_it_die(error):
            self.run.gone.setdefault(target_of(item), check.id)
        outcome, message = judge(call)
        if call.when == "call" or outcome is not Outcome.PASSED:
            result.add(outcome, message)
        if call.when == "teardown":
            result.evidence += [value for name, value in item.user_properties if name == "evidence"]
            self._settle(result)
        return report

    def _settle(self, result: Result) -> None:
        """Take in one finished run of a check; others with other parameters may follow."""
        check = result.check
        result.expected_failure = self.selection.expected_failures.get(check.id)
        if check.gate and result.outcome in (Outcome.FAILED, Outcome.ERROR):
            self.run.failed_gates[(check.layer, result.target)] = check.id
        if self.progress is not None and self.run.abort is None:
            self.progress.finished(result)
        if isinstance(self.beside, Fork):
            self.beside.poll()

    def _conclude(self, result: Result) -> None:
        """Hold a check, all its runs done, against what the user expects and claims of it."""
        feature, expected = result.check.feature, result.expected_failure
        if result.outcome is Outcome.PASSED and expected is not None:
            result.expected_failure = None
            result.add(Outcome.FAILED, f"passes, but is listed as an expected failure ({expected}): remove the line")
        held = feature in self.options.claims and not result.beyond
        if held and result.outcome in (Outcome.UNSUPPORTED, Outcome.SKIPPED):
            result.outcomes = []
            result.add(Outcome.FAILED, f"the feature {feature!r} is claimed, but the check did not run")

    def pytest_keyboard_interrupt(self) -> None:
        """Remember that the run was cut short."""
        if self.run.abort is None:
            self.run.interrupted = True

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
        """Write the verdict and let its result be pytest's exit code."""
        try:
            yield  # others write their reports
        except OSError as error:
            self.run.unwritten = f"cannot write {error.filename or 'a report'}: {error.strerror}"
        self._resources.close()
        if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
            self.run.abort = self.run.abort or "pytest failed internally; its traceback is above"
        if isinstance(self.beside, Sender):
            self.beside.conclude(self.run)
        self.run.seconds = time.monotonic() - self.run.started
        for result in self.run.finished():
            self._conclude(result)
        verdict = self.run.verdict = build_verdict(self.run)
        if self.out is not None:
            self._write(verdict, self.out)
        session.exitstatus = self._exit_code(verdict)

    def _write(self, verdict: dict[str, Any], out: str) -> None:
        """Write the verdict; where that cannot be done the run still says what it found."""
        try:
            write_outputs(verdict, out)
        except KitError as error:
            self.run.unwritten = _spelled(str(error), self.prefix)

    def _exit_code(self, verdict: dict[str, Any]) -> int:
        """Return what pytest exits with; a failure among the user's own tests beside the checks stays one."""
        code = EXIT_CODES["error" if self.run.unwritten else verdict["result"]]
        if self.run.foreign_failure and code != EXIT_CODES["error"]:
            return EXIT_CODES["nonconformant"]
        return code

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Under plain pytest: the verdict in two lines."""
        verdict = self.run.verdict
        if verdict is None:
            return
        terminalreporter.section("gaugeblock")
        if self.run.abort:
            terminalreporter.write_line(self.run.abort)
        if verdict["first_failing_layer"]:
            terminalreporter.write_line(f"first failing layer: {verdict['first_failing_layer']}")
        if self.run.unwritten:
            terminalreporter.write_line(self.run.unwritten)
        terminalreporter.write_line(f"result: {verdict['result']}")


def _refuse_workers(config: pytest.Config) -> None:
    """Raise :class:`KitError` for a run that pytest-xdist would divide: no process would then know all of the run."""
    divided_run = config.getoption("dist", "no") != "no" and config.getoption("tx", None)
    if divided_run and not config.getoption("collectonly", False):
        raise KitError(
            "the checks share targets and gates and come to one verdict, so they do not run under pytest-xdist: leave "
            "-n out or give -n 0; to use more cores, run the layers as separate pytest calls"
        )


def _spelled(text: str, prefix: str) -> str:
    """Return a message about the folder of a run with its option as this user spells it."""
    return text.replace(" --out", f" {prefix}out")


def _saw_it_die(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that nothing listens at the target any more."""
    if error is None:
        return False
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return isinstance(error, TargetGone) or any(map(_saw_it_die, (*parts, error.__cause__, error.__context__)))


def read_options(
    get: Callable[[str], Any], prefix: str = PREFIX, layers: tuple[str, ...] = ()
) -> tuple[TargetOptions, Selection]:
    """Build targets and selection from the ``gb_…`` options; unknown names and contradictions are refused.

    ``prefix`` is how the user spells options. ``layers`` are the user's own; none: all that the targets speak about.

    Raises:
        KitError: what is wrong, with the legal names.
    """
    options = TargetOptions(
        engine_urls=tuple(url.rstrip("/") for url in get("gb_engine_url")),
        router_url=get("gb_router_url"),
        router_workers=get("gb_router_workers"),
        router_hosts=bool(get("gb_router_hosts")),
        router_cmd=get("gb_router_cmd"),
        router_name=get("gb_router"),
        model=get("gb_model"),
        kernels=get("gb_kernels"),
        kv=get("gb_kv"),
        int8=get("gb_int8"),
        api_key_env=get("gb_api_key_env"),
        request_timeout=get("gb_timeout"),
        claims=frozenset(get("gb_claim")),
        fault=get("gb_fault"),
    )
    scope = options.layers() or tuple(LAYERS)
    selection = Selection(
        ids=frozenset(get("gb_check")),
        level=get("gb_level"),
        skips=parse_skips(get("gb_skip")),
        expected_failures=read_expected_failures(get("gb_expected_failures")),
        full_layer=get("gb_gates_except"),
        ops=frozenset(get("gb_op")),
    ).narrowed(layers or scope, scope)
    if options.fault:
        find_fault(options.fault)
    refuse_contradictions(options, selection, prefix)
    if selection.ops:
        _require_ops(selection.ops)
    if selection.ids or selection.skips or selection.expected_failures or options.claims:
        known = load_checks()[0]
        selection.validate(known)
        features = {check.feature for check in known.values()} | set(ENGINE_FEATURES) | set(ROUTER_FEATURES)
        for claim in sorted(options.claims):
            legal_name("feature", claim, features)
        refuse_idle_names(options, selection, known, prefix)
    if get("gb_update_golden"):
        require_embedded(options)
    if options.kernels:
        _require_kernels(options.kernels, f"{prefix}kernels")
    if options.kv:
        if not _importable(options.kv.partition(":")[0]):
            raise KitError(f"no module {options.kv!r} with a KV manager: is it installed, or on PYTHONPATH?")
        try_kv(options.kv)
    if options.int8:
        if not _importable(options.int8):
            raise KitError(f"no module {options.int8!r} with an INT8 linear: is it installed, or on PYTHONPATH?")
        try_int8(options.int8)
    if options.router_workers is not None:
        parse_workers(options.router_workers)
    if options.router_cmd:
        command_launcher(options.router_cmd, options.claims)
    if options.router_name:
        legal_name("router", options.router_name, LAUNCHERS)
    return options, selection


def _require_ops(names: Iterable[str]) -> None:
    try:
        from gaugeblock.kernels.contract import load_contracts
    except ModuleNotFoundError as error:
        raise KitError("ops need torch and triton: pip install 'gaugeblock[gpu]'") from error
    for name in sorted(names):
        legal_name("op", name, load_contracts())


def _require_kernels(name: str, option: str) -> None:
    if not _importable(name):
        raise KitError(f"no module {name!r} to hold to the kernel contracts: is it installed, or on PYTHONPATH?")
    try:
        from gaugeblock.fixtures.targets.kernels import load_kernels
    except ModuleNotFoundError as error:
        raise EnvironmentFault("kernels need torch and triton: pip install 'gaugeblock[gpu]'") from error
    load_kernels(name, option)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a parent package is missing, or the name is none
        return False


def check_of(item: pytest.Item) -> Check | None:
    """Return the record of a collected check, None for any other test."""
    record = getattr(getattr(item, "function", None), "gaugeblock_check", None)
    return record if isinstance(record, Check) else None


def has_target(item: pytest.Item) -> bool:
    """Whether an item runs against one of the engines, by the fixture parameter ``engine_url``."""
    return PARAMETER in getattr(getattr(item, "callspec", None), "params", {})


def target_of(item: pytest.Item) -> str:
    """Return which engine an item runs against; empty for the embedded one and for items without an engine."""
    return str(getattr(getattr(item, "callspec", None), "params", {}).get(PARAMETER, ""))


def _order(item: pytest.Item) -> tuple[bool, bool, int, str, bool, str]:
    """Sort key. One target after the other within a layer, so that its session is set up once."""
    check = check_of(item)
    if check is None:
        return True, False, 0, "", False, ""
    return False, check.destructive, list(LAYERS).index(check.layer), target_of(item), not check.gate, check.id
