"""The pools of threads, in words; and what makes them starve each other, with the cure."""

import threadpoolctl

from kobai.cpu import blas, thread_report

OPENBLAS = {
    "user_api": "blas",
    "internal_api": "openblas",
    "num_threads": 8,
    "prefix": "libscipy_openblas",
    "version": "0.3.30",
    "threading_layer": "pthreads",
    "architecture": "Zen",
}
GOMP = {"user_api": "openmp", "internal_api": "openmp", "num_threads": 4, "prefix": "libgomp", "version": None}


def machine(monkeypatch, *loaded, processors=8, **environment):
    for name in thread_report.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(thread_report, "processors", lambda: processors)
    monkeypatch.setattr(thread_report, "num_threads", lambda: processors)
    monkeypatch.setattr(threadpoolctl, "threadpool_info", lambda: list(loaded))


def test_every_pool_in_a_line(monkeypatch):
    machine(monkeypatch, OMP_WAIT_POLICY="")
    assert thread_report.describe(OPENBLAS) == (
        "libscipy_openblas 0.3.30 for Zen, pthreads, 8 threads, held to one while Kobai computes"
    )
    assert thread_report.describe(GOMP) == "libgomp, 4 threads, which spin for a while after their work"
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert thread_report.describe({**GOMP, "num_threads": 1}) == "libgomp, 1 thread, which sleep after their work"
    monkeypatch.setenv("KOBAI_EXCLUSIVE", "1")
    assert thread_report.describe(OPENBLAS) == "libscipy_openblas 0.3.30 for Zen, pthreads, 8 threads"
    assert thread_report.settings() == {"OMP_WAIT_POLICY": "passive", "KOBAI_EXCLUSIVE": "1"}


def test_as_things_are_by_default_nothing_starves(monkeypatch):
    machine(monkeypatch, OPENBLAS, GOMP)
    assert thread_report.warnings() == []
    machine(monkeypatch, OPENBLAS, processors=2)  # a container's quota: products are split by processors
    assert thread_report.warnings() == []


def test_what_is_wrong_and_its_cure(monkeypatch):
    machine(monkeypatch, OPENBLAS, processors=2, KOBAI_EXCLUSIVE="1")
    (warning,) = thread_report.warnings()
    assert "BLAS has 8 threads for 2 processors" in warning
    assert warning.endswith("set OPENBLAS_NUM_THREADS=2")
    machine(monkeypatch, OPENBLAS, GOMP, KOBAI_EXCLUSIVE="1")
    (warning,) = thread_report.warnings()
    assert "libgomp" in warning
    assert warning.endswith("Unset KOBAI_EXCLUSIVE")
    machine(monkeypatch, OPENBLAS, GOMP, OMP_WAIT_POLICY="active")
    (warning,) = thread_report.warnings()
    assert warning.endswith("set it to passive")
    machine(monkeypatch, OPENBLAS, processors=2)
    monkeypatch.setattr(thread_report, "num_threads", lambda: 5)
    (warning,) = thread_report.warnings()
    assert warning.endswith("set_num_threads(2)")


def test_processors_with_the_reason_for_their_number(monkeypatch):
    monkeypatch.setattr(thread_report.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(thread_report, "visible_processors", lambda: 8)
    monkeypatch.setattr(thread_report, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(thread_report, "processors", lambda: 2)
    assert thread_report.granted() == "2 of 16: by affinity 8, the container's quota is 1.5"
    monkeypatch.setattr(thread_report, "visible_processors", lambda: 16)
    monkeypatch.setattr(thread_report, "cpu_quota", lambda: None)
    monkeypatch.setattr(thread_report, "processors", lambda: 16)
    assert thread_report.granted() == "16 of 16"


def test_the_pools_of_this_process():
    assert len(thread_report.pools()) >= len(blas.switches())


def test_code_for_narrower_vectors_than_the_processor_has_is_found(tmp_path):
    wide, old = tmp_path / "wide", tmp_path / "old"
    wide.write_text("vendor_id : x\nflags : sse avx2 avx512f avx512cd avx512dq avx512bw avx512vl\n")
    old.write_text("flags : sse avx2\n")
    haswell = {"internal_api": "openblas", "architecture": "Haswell"}
    assert thread_report.narrow_kernels(haswell, wide)
    assert not thread_report.narrow_kernels(haswell, old)
    assert not thread_report.narrow_kernels({**haswell, "architecture": "SkylakeX"}, wide)
    assert not thread_report.narrow_kernels({**haswell, "internal_api": "mkl"}, wide)
    assert not thread_report.narrow_kernels(haswell, tmp_path / "missing")


def test_the_library_is_blamed_only_where_products_are_its_own(monkeypatch):
    monkeypatch.setattr(thread_report, "pools", lambda: [{"internal_api": "openblas", "architecture": "Haswell"}])
    monkeypatch.setattr(thread_report, "narrow_kernels", lambda pool: True)
    for own, found in ((True, 0), (False, 1)):
        monkeypatch.setattr(blas, "own", lambda own=own: own)
        assert len(thread_report.hints()) == found
