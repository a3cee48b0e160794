"""``kobai.profiler``: PyTorch's names for Python's profiler."""

import importlib
import json

import pytest

import kobai
from kobai import profiler


def test_functions_and_blocks_are_counted(tmp_path):
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU], record_shapes=True) as measured:
        for _ in range(3):
            with profiler.record_function("block"):
                kobai.ones(4).sum()
    with profiler.record_function("outside"):
        pass
    rows = {row.key: row for row in measured.key_averages()}
    assert rows["block"].count == 3
    assert "outside" not in rows
    assert any(row.count == 3 and row.key.endswith(" sum") for row in rows.values())
    assert rows["block"].cpu_time_total >= rows["block"].cpu_time > 0
    text = measured.key_averages().table(sort_by="self_cpu_time_total", row_limit=2)
    assert len(text.splitlines()) == 4
    assert "block" in str(measured)
    assert measured.events().total_average().count > 3
    measured.export_chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["name"] for event in events] == ["block"] * 3
    with pytest.raises(ValueError, match="got 'speed'"):
        measured.table(sort_by="speed")


def test_a_schedule_says_which_steps_are_measured(tmp_path):
    seen = []

    def ready(measured):
        seen.append((measured.step_num, [name for name, _, _ in measured.blocks]))

    plan = profiler.schedule(wait=1, warmup=1, active=2, repeat=2)
    with profiler.profile(schedule=plan, on_trace_ready=ready) as measured:
        for i in range(10):
            with profiler.record_function(f"{i}"):
                pass
            measured.step()
    assert seen == [(3, ["2", "3"]), (7, ["6", "7"])]
    with profiler.profile(on_trace_ready=profiler.tensorboard_trace_handler(str(tmp_path / "log"))):
        kobai.ones(1)
    assert len(list((tmp_path / "log").iterdir())) == 1


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:Profiler won't be using warmup")
@pytest.mark.parametrize(
    "plan",
    [
        {"wait": 1, "warmup": 1, "active": 2},
        {"wait": 0, "warmup": 0, "active": 1, "repeat": 2},
        {"wait": 2, "warmup": 1, "active": 3, "repeat": 1, "skip_first": 2},
        {"wait": 2, "warmup": 1, "active": 1, "skip_first": 1, "skip_first_wait": 1},
    ],
)
def test_schedules_as_pytorchs(plan):
    theirs = importlib.import_module("torch.profiler").schedule(**plan)
    ours = profiler.schedule(**plan)
    assert [ours(i).name for i in range(20)] == [theirs(i).name for i in range(20)]


def test_a_profile_can_be_off():
    with kobai.autograd.profiler.profile(enabled=False, use_cuda=True) as measured:
        kobai.ones(1)
    assert measured.key_averages() == []


def test_what_is_no_schedule_is_refused():
    with pytest.raises(TypeError, match="speed"):
        profiler.profile(speed=3)
    with pytest.raises(ValueError, match="active=0"):
        profiler.schedule(wait=1, warmup=1, active=0)
