"""The worked examples run as a reader would run them, and say what they are there to say."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name):
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sessions_stay_on_their_engine_and_find_their_history_cached():
    rows = [line.split() for line in run("ch07_sglang_multinode.py").splitlines()[1:]]
    for session in ("alice", "bob"):
        mine = [row for row in rows if row[0] == session]
        assert len({row[2] for row in mine}) == 1, mine
        assert [row[3] for row in mine] == ["miss", "session", "session"]
        assert 0 == int(mine[0][5]) < int(mine[1][5]) < int(mine[2][5])


def test_fused_and_unfused_have_the_error_of_their_dtype():
    errors = [float(value) for value in re.findall(r"relative error (\S+?),?\n", run("ch07_operator_fusion.py"))]
    assert len(errors) == 2
    assert max(errors) < 2**-8  # bf16 keeps 8 bits


def test_chunks_give_the_logprobs_of_one_shot():
    lines = run("ch07_chunked_prefill.py").splitlines()
    steps = [int(re.search(r"(\d+) steps", line)[1]) for line in lines]
    assert steps[0] == 1
    assert steps[1] > 10
    assert all(float(line.split()[-2]) < 5e-4 for line in lines)
    kv, moved = zip(
        *(map(int, re.search(r"(\d+) bytes of KV, (\d+) streamed", line).groups()) for line in lines[2:]), strict=True
    )
    assert moved[0] == 0 < moved[1]
    assert kv[1] < kv[0] / 2


def test_each_request_is_served_by_the_lane_it_belongs_to():
    rows = [line.split() for line in run("ch07_hybrid_serving.py").splitlines()[1:]]
    assert rows[0][-3:] == ["gpu", "fp32", "-"]
    assert rows[1][-3:] == ["cpu", "int8", "-"]
    assert rows[2][-3:] == ["gpu", "fp32", "-"]
    assert "429" in rows[3]
    crowd = {tuple(row[-3:]): int(row[0]) for row in rows[4:]}
    assert sum(crowd.values()) == 12
    assert crowd[("cpu", "int8", "overload")] >= 4
