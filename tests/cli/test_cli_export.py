"""``kobai export``."""

import json

import numpy as np
import pytest

import kobai
from cli_commands import kobai_command
from kobai.train import inference, job

onnxruntime = pytest.importorskip("onnxruntime")
package = pytest.importorskip("onnx")


def test_a_run_as_a_graph_that_answers_as_the_model_does(capsys, run):
    code, out, err = kobai_command(capsys, "export", run, "--to", "onnx")
    assert (code, err) == (0, "")
    assert out.startswith("run/model.onnx: run/best.safetensors, epoch 20, the best of run\n")
    assert "float32 (samples, 2): x, y; how columns become these says the file's metadata, kobai.preparation" in out
    assert "float32 (samples, 3): one for each class, ant, bee, cat" in out
    restored = job.restore("run", print)
    asked = inference.questions(restored, None, None, None)
    (scores,) = onnxruntime.InferenceSession("run/model.onnx").run(None, {"x": asked.inputs.numpy()})
    with kobai.no_grad():
        np.testing.assert_allclose(scores, restored.model(asked.inputs).numpy(), rtol=1e-5, atol=1e-5)
    metadata = {entry.key: entry.value for entry in package.load_model("run/model.onnx").metadata_props}
    assert json.loads(metadata["kobai.classes"]) == ["ant", "bee", "cat"]
    assert json.loads(metadata["kobai.preparation"]) == json.loads(json.dumps(restored.preparation.to_dict()))
    assert kobai.onnx.load("run/model.onnx").state_dict().keys() == restored.model.state_dict().keys()


def test_a_checkpoint_to_a_file_and_what_is_refused(capsys, run, tmp_path):
    code, _, _ = kobai_command(capsys, "export", "run/last.safetensors", "--out", tmp_path / "net.onnx")
    assert code == 0
    assert (tmp_path / "net.onnx").stat().st_size > 100
    code, _, err = kobai_command(capsys, "export", "run", "--to", "onx")
    assert code == 2
    assert "Did you mean 'onnx'?" in err
    assert kobai_command(capsys, "export", "nowhere")[0] == 1


def test_without_the_package_the_message_says_how_to_get_it(capsys, run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    code, _, err = kobai_command(capsys, "export", "run")
    assert code == 1
    assert "pip install 'kobai[onnx]'" in err


def test_a_regression_says_what_its_values_are(capsys, tmp_path):
    rows = "".join(f"{i},{i * i % 7},{3.5 * i + 100}\n" for i in range(80))
    (tmp_path / "prices.csv").write_text(f"size,rooms,price\n{rows}")
    assert (
        kobai_command(capsys, "train", "--data", tmp_path / "prices.csv", "--epochs", 2, "--out", "run", "-q")[0] == 0
    )
    code, out, err = kobai_command(capsys, "export", "run")
    assert code == 0, err
    assert "values  float32 (samples, 1): price is value × " in out
