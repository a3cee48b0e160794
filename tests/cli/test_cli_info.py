"""``kobai info``, ``warmup`` and ``help``."""

import subprocess
import tomllib

import pytest

import kobai
from cli_commands import ENVIRONMENT, SMALL, command_line, kobai_command
from kobai.engine import notices
from kobai.engine.notices import NOTICE
from kobai.train import job
from kobai.train.settings import RunSettings, to_toml

# --- the rest ---------------------------------------------------------------------------------------------------------


def test_info_tells_what_is_here_and_what_is_missing(capsys):
    code, out, err = kobai_command(capsys, "info")
    assert (code, err) == (0, "")
    for words in ("numpy", "ready (default)", "cpu", "Packages", "safetensors", "Engines"):
        assert words in out
    for extra in ("cpu", "plot", "data", "tune", "cuda12"):
        package = {"cpu": "numba", "plot": "matplotlib", "data": "pooch", "tune": "optuna", "cuda12": "cupy-cuda12x"}[
            extra
        ]
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [package]]
        assert "missing" not in line or f"pip install 'kobai[{extra}]'" in line


def test_info_works_where_the_environment_names_a_backend_that_cannot_be_had(capsys, monkeypatch):
    monkeypatch.setenv("KOBAI_BACKEND", "nunpy")
    monkeypatch.setattr("kobai.xp._default", None)
    code, out, err = kobai_command(capsys, "info")
    assert (code, err) == (0, "")
    assert "none: KOBAI_BACKEND=nunpy: backend: expected" in out
    assert "Packages" in out


def test_info_shows_engines_and_threads_and_warns(capsys, monkeypatch):
    monkeypatch.setattr("kobai.cpu.thread_report.warnings", lambda: ["BLAS waits for itself. Unset it"])
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    _, out, _ = kobai_command(capsys, "info")
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert "BLAS waits for itself. Unset it" in rows["warning"]
    assert "OMP_NUM_THREADS=2" in rows["environment"]
    assert " of " in rows["processors"]
    assert rows["kobai"].split()[1].isdigit()
    assert "products" in rows["kobai"]
    monkeypatch.setattr("kobai.engine.dispatch.numba_installed", False)
    _, out, _ = kobai_command(capsys, "info")
    assert "missing, so that NumPy does it all: pip install 'kobai[cpu]'" in out


# --- warmup -----------------------------------------------------------------------------------------------------------


@pytest.mark.rest
@pytest.mark.thorough
def test_warmup_compiles_once_and_says_what(capsys, monkeypatch, tmp_path):
    pytest.importorskip("numba")
    environment = {**ENVIRONMENT, "NUMBA_CACHE_DIR": str(tmp_path / "numba"), "KOBAI_CACHE": str(tmp_path / "kobai")}
    command = command_line("warmup", "--hidden", "8", "--no-batch-norm", "--dropout", 0)
    first, second = (subprocess.run(command, env=environment, capture_output=True, text=True) for _ in range(2))
    assert (first.returncode, first.stderr) == (0, "")
    *kernels, last = first.stdout.splitlines()
    assert len(kernels) >= 2
    assert last.startswith(f"{len(kernels)} kernels compiled in ")
    assert (second.returncode, len(second.stdout.splitlines())) == (0, 1)
    assert second.stdout.startswith("all kernels were compiled already")
    flags = ["--hidden", "8", "--no-batch-norm", "--dropout", 0, "--epochs", 1, "--doctor", "--out", "run"]
    trained = subprocess.run(command_line("train", *flags), env=environment, capture_output=True, text=True)
    assert trained.returncode == 0
    assert NOTICE not in trained.stdout + trained.stderr


def test_warmup_for_a_run_or_a_table(capsys, run, table):
    code, out, err = kobai_command(capsys, "warmup", run)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("for the net of run/best.safetensors, epoch 20, the best of run, trained on ")
    assert kobai_command(capsys, "warmup", "--data", table, "--hidden", "", "--quiet") == (0, "", "")
    code, _, err = kobai_command(capsys, "warmup", run, "--hidden", 9)
    assert code == 2
    assert "there is no use for --hidden" in err


def test_warmup_leaves_a_run_as_it_is(capsys, run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    kobai_command(capsys, "warmup", run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_warmup_without_numba_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("kobai.engine.dispatch.numba_installed", False)
    code, out, _ = kobai_command(capsys, "warmup", "--hidden", "4")
    assert (code, out) == (0, "nothing to compile without Numba: pip install 'kobai[cpu]'\n")


def test_training_says_once_that_it_compiles(capsys, table, monkeypatch):
    def train(*args, say, **kwargs):
        for name in "ab":
            with notices.compiling(name):
                pass
        return {"loss": 1.0, "accuracy": 0.5}

    monkeypatch.setattr(job, "train", train)
    _, out, err = kobai_command(capsys, "train", "--data", table)
    assert (out.count(NOTICE), err) == (1, "")
    assert kobai_command(capsys, "train", "--data", table, "--quiet") == (0, "test accuracy 0.5000\n", "")


def test_training_warns_of_threads_that_starve(capsys, table, monkeypatch):
    monkeypatch.setattr("kobai.cpu.thread_report.warnings", lambda: ["OpenMP spins. Stop it"])
    _, _, err = kobai_command(capsys, "train", "--data", table, *SMALL)
    assert err == "kobai: OpenMP spins. Stop it\n"
    assert kobai_command(capsys, "train", "--data", table, *SMALL, "--quiet")[2] == ""


def test_version_help_and_usage(capsys):
    assert kobai_command(capsys, "--version")[:2] == (0, f"kobai {kobai.version.kobai}\n")
    for command in ([], ["train"], ["evaluate"], ["predict"], ["warmup"], ["info"]):
        code, out, _ = kobai_command(capsys, *command, "--help")
        assert code == 0
        assert "Usage: kobai" in out
        assert command in ([], ["info"]) or "Examples" in out
    code, _, err = kobai_command(capsys, "trian")
    assert (code, "trian" in err) == (2, True)
    code, out, err = kobai_command(capsys)
    assert "Usage: kobai" in out + err


def test_help_names_every_setting(capsys):
    _, out, _ = kobai_command(capsys, "train", "--help")
    for name in RunSettings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in out


def test_settings_survive_toml():
    settings = RunSettings(data='a "quoted"\\name\n.csv', hidden=(3, 2), lr=1e-7, patience=None, batch_norm=True)
    back = RunSettings.from_dict(tomllib.loads(to_toml(settings.as_dict())))
    assert back == settings
