"""A trace becomes a tree of calls that own their kernels, from a file of this process or of an engine."""

import gzip
import json

import pytest

from gaugeblock.conformance.profiling.operators import busy_us, launches, operators
from gaugeblock.conformance.profiling.patterns import idle_share
from gaugeblock.conformance.profiling.trace import parse_trace, read_trace
from gaugeblock.fixtures.errors import KitError

from .made import op, trace

NESTED = op(
    "aten::linear", [2, 8], [4, 8], us=30, inner=(op("aten::t", [4, 8], us=2), op("aten::mm", [2, 8], [8, 4], us=9))
)


def test_self_time_leaves_out_what_an_operator_called():
    found = parse_trace(trace(prefill=[NESTED]))
    assert [call.name for call in found.calls] == ["aten::linear"]
    linear = found.calls[0]
    assert [child.name for child in linear.children] == ["aten::t", "aten::mm"]
    assert linear.host_us == pytest.approx(30 - 2 - 9)
    assert not found.on_device


def test_kernels_belong_to_the_innermost_operator_around_their_launch():
    inner = op("aten::mm", [2, 8], [8, 4], us=9, kernels=(70.0, 5.0))
    found = parse_trace(trace(prefill=[op("aten::linear", [2, 8], [4, 8], us=30, inner=(inner,))], decode=[NESTED]))
    linear = found.calls[0]
    assert linear.device_us == 0
    assert linear.children[0].device_us == 75.0
    assert found.on_device
    assert launches(found, "prefill") == 2
    assert launches(found, "decode") == 0
    assert busy_us(found, "prefill") == 75.0


def test_a_kernel_outside_any_operator_has_a_row_of_its_own():
    data = trace(prefill=[op("aten::mul", [4], [4])])
    data["traceEvents"] += [
        {"ph": "X", "cat": "cuda_driver", "name": "cuLaunchKernel", "pid": 1, "tid": 1, "ts": 1011.0, "dur": 1.0,
         "args": {"correlation": 99}},
        {"ph": "X", "cat": "kernel", "name": "_add_rmsnorm_kernel", "pid": 1, "tid": 7, "ts": 1500.0, "dur": 3.0,
         "args": {"correlation": 99}},
    ]  # fmt: skip
    row = operators(parse_trace(data), None)[0]
    assert (row.name, row.launches, row.self_us, row.bytes) == ("_add_rmsnorm_kernel", 1, 3.0, None)


def test_a_phase_is_as_idle_as_its_device_waited():
    found = parse_trace(trace(decode=[op("aten::mul", [4], [4], us=99, kernels=(25.0,))]))
    assert found.phases["decode"] == pytest.approx(100.0)
    assert idle_share(found, "decode") == pytest.approx(0.75)


def test_the_peak_is_the_highest_sum_of_allocations():
    data = trace(prefill=[])
    for i, change in enumerate((100, 50, -100, 30)):
        data["traceEvents"].append(
            {"ph": "i", "name": "[memory]", "ts": i, "args": {"Bytes": change, "Device Type": 0}}
        )
    assert parse_trace(data).peak_bytes == 150


def test_a_gzipped_trace_reads_as_a_plain_one(tmp_path):
    text = json.dumps(trace(prefill=[NESTED])).encode()
    (tmp_path / "a.json").write_bytes(text)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(text))
    plain, zipped = read_trace(tmp_path / "a.json"), read_trace(tmp_path / "b.json.gz")
    assert [c.name for c in plain.walk()] == [c.name for c in zipped.walk()] == ["aten::linear", "aten::t", "aten::mm"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"\x1f\x8bshort", b'{"traceEvents": [{"ph": "X", "cat": "cpu_op"}]}']
)
def test_what_is_no_trace_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(KitError, match=r"t\.json") as refused:
        read_trace(path)
    assert "\n" not in str(refused.value)
