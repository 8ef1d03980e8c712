"""The recipe end to end on a tiny random Llama: stages, going on where it stopped, bad input."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from backend.cli import app
from backend.errors import UserError
from backend.home import Home
from backend.models.derived_moe import deriving, distillation, load_derived, recipe, search
from backend.models.derived_moe.artefacts import read_manifest, read_parts
from backend.models.derived_moe.clustering import (
    balanced_kmeans,
    captured_share,
    energies,
    expert_energies,
    group_neurons,
    oracle_choice,
)
from backend.models.derived_moe.distillation import kl_and_gradient
from backend.models.derived_moe.router import regress_router
from backend.models.derived_moe.settings import MoEShape, Training, parse_settings
from backend.models.derived_moe.text import read_training_text, training_files
from backend.models.loading import load_model
from tests.models_tiny import tiny_model, tiny_tokenizer

SHAPE = MoEShape(shared=32, experts=8, top_k=2)
TRAINING = Training(
    window=32, calibration_windows=8, validation_windows=2, cluster_tokens=128, router_tokens=200,
    lora_rank=2, sequence=16, batch_tokens=64, steps=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in the layout of the real one, with words of our own."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)
    words = ["sparse", "expert", "token", "router", "dense", "layer", "a", "the", "of"]

    def prose(count: int) -> str:
        return " ".join(rng.choice(words) for _ in range(count))

    (folder / "wikitext2").mkdir()
    (folder / "wikitext2" / "wiki.train.raw.head.txt").write_text(prose(900))
    (folder / "wikitext2" / "wiki.test.raw").write_text(prose(200))
    (folder / "corpus").mkdir()
    book = f"licence ZZZZ\n*** START OF THIS BOOK ***\n{prose(500)}\n*** END OF THIS BOOK ***\nZZZZ licence"
    (folder / "corpus" / "book.txt").write_text(book)
    (folder / "corpus" / "plays.txt").write_text(prose(300))
    return folder


def derive(root: Path | None, home: Home, folder: Path, tiny: Path, **changes: Any) -> Any:
    training = TRAINING.model_copy(update=changes)
    return deriving.derive(
        "tiny-moe", str(tiny), home, root, folder, shape=SHAPE, training=training, tokens=128, window=64
    )


def test_the_recipe_runs_and_its_result_loads(
    root: Path, home: Home, tmp_path: Path, tiny_folder: Path
) -> None:
    manifest = derive(root, home, tmp_path / "out", tiny_folder)
    assert manifest == read_manifest(tmp_path / "out")
    assert set(manifest.text_sha256) == {
        "wikitext2/wiki.train.raw.head.txt",
        "corpus/book.txt",
        "corpus/plays.txt",
    }
    report = manifest.report
    assert report["scored_tokens"] == 2 * 63
    assert report["training"]["tokens"] == 20 * 64
    assert np.asarray(report["load"]).shape == (3, 8)
    np.testing.assert_allclose(np.sum(report["load"], axis=1), 2.0, atol=1e-3)  # K experts a token
    assert all(0 < entropy <= np.log(8) for entropy in report["entropy_nats"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    dense = load_model(str(tiny_folder), home)
    moe = load_derived(dense.model, tmp_path / "out")
    assert moe(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_the_distillation_comes_nearer_to_the_dense_model(
    root: Path, home: Home, tmp_path: Path, tiny_folder: Path
) -> None:
    derive(root, home, tmp_path / "out", tiny_folder, steps=60)
    kl = [json.loads(line)["kl"] for line in (tmp_path / "out" / "training.jsonl").read_text().splitlines()]
    assert np.mean(kl[-10:]) < 0.9 * kl[0]


class KilledError(Exception):
    """Stands for the process being killed."""


@pytest.mark.parametrize("stage", recipe.STAGES)
def test_killed_before_any_stage_it_goes_on(
    stage: str, root: Path, home: Home, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: recipe.Recipe) -> None:
        raise KilledError

    with monkeypatch.context() as context:
        context.setattr(recipe.Recipe, f"_{stage}", property(killed))
        with pytest.raises(KilledError):
            derive(root, home, tmp_path / "out", tiny_folder)
    work = home.root / "moe" / "tiny-moe"
    before = {path: path.stat().st_mtime_ns for path in work.glob("*.safetensors")}
    derive(root, home, tmp_path / "out", tiny_folder)
    assert len(before) >= max(0, recipe.STAGES.index(stage) - 1)  # the recording has a folder of its own
    for path, changed in before.items():
        assert path.stat().st_mtime_ns == changed, f"{path.name} was made again"


def test_killed_within_the_distillation_it_ends_as_if_it_had_not_been(
    root: Path, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = [Home.resolve(tmp_path / name) for name in ("whole", "cut")]
    derive(root, homes[0], tmp_path / "a", tiny_folder)
    step, steps = distillation._step, 0

    def until_13(*arguments: Any) -> float:
        nonlocal steps
        steps += 1
        if steps == 14:
            raise KilledError
        return step(*arguments)

    with monkeypatch.context() as context:
        context.setattr(distillation, "_step", until_13)
        context.setattr(distillation, "_CHECKPOINT_SECONDS", 0.0)
        with pytest.raises(KilledError):
            derive(root, homes[1], tmp_path / "b", tiny_folder)
    derive(root, homes[1], tmp_path / "b", tiny_folder)
    parts = [read_parts(tmp_path / name, read_manifest(tmp_path / name)) for name in ("a", "b")]
    for name, tensor in parts[0].items():
        torch.testing.assert_close(tensor.float(), parts[1][name].float(), atol=2e-3, rtol=2e-3)
    logs = [(tmp_path / name / "training.jsonl").read_text().splitlines() for name in ("a", "b")]
    assert [json.loads(line)["step"] for line in logs[1]] == [json.loads(line)["step"] for line in logs[0]]


def test_another_recipe_does_not_go_on_in_the_same_folder(
    root: Path, home: Home, tmp_path: Path, tiny_folder: Path
) -> None:
    derive(root, home, tmp_path / "out", tiny_folder)
    with pytest.raises(UserError, match="begun with other settings"):
        derive(root, home, tmp_path / "out", tiny_folder, lora_rank=4)


def test_shapes_are_compared_under_an_oracle(
    root: Path, home: Home, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly_all = MoEShape(shared=32, experts=8, top_k=7)
    monkeypatch.setattr(search, "CANDIDATES", ((SHAPE, True), (SHAPE, False), (nearly_all, True)))
    training = TRAINING.model_copy(update={"search_tokens": 100})
    found = deriving.probe_shapes(
        "tiny-moe", str(tiny_folder), home, root, tmp_path, shape=SHAPE, training=training
    )
    assert [each["clustered"] for each in found] == [True, False, True]
    assert [each["share_on"] for each in found] == pytest.approx([44 / 80, 44 / 80, 74 / 80])
    assert found[0]["captured_energy"] < found[2]["captured_energy"] < 1
    assert abs(math.log(found[2]["ratio"])) < abs(math.log(found[0]["ratio"]))  # nearly the dense model
    lines = (tmp_path / "search.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == found


def test_an_oracle_that_keeps_all_is_the_dense_mlp() -> None:
    mlp = tiny_model("llama")[0].model.layers[0].mlp
    x = torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(80, generator=torch.Generator().manual_seed(1))
    every = MoEShape.model_construct(shared=32, experts=8, top_k=8)
    torch.testing.assert_close(search.OracleMoE(mlp, order, every)(x), mlp(x))
    # By hand for one token: the shared neurons and the two loudest experts.
    one = search.OracleMoE(mlp, order, SHAPE)(x)[1, 2]
    gated = (mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x))[1, 2][order]
    loud = (gated * mlp.down_proj.weight[:, order].norm(dim=0)).square()[32:].view(8, 6).sum(dim=1)
    keep = torch.zeros(80)
    keep[:32] = 1
    for expert in loud.topk(2).indices.tolist():
        keep[32 + 6 * expert : 38 + 6 * expert] = 1
    torch.testing.assert_close(one, mlp.down_proj.weight[:, order] @ (gated * keep))


def test_a_missing_data_root_is_a_sentence(home: Home, tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(UserError, match="under a data root; name one with --data-root"):
        derive(None, home, tmp_path / "out", tiny_folder)
    with pytest.raises(UserError, match="which the MoE is trained on"):
        derive(tmp_path, home, tmp_path / "out", tiny_folder)


def test_the_command_refuses_bad_input_with_exit_2(root: Path, tmp_path: Path, tiny_folder: Path) -> None:
    common = ["derive-moe", "--base", str(tiny_folder), "--home", str(tmp_path), "--data-root", str(root)]
    for settings, message in (
        (["shared=33"], "cannot be cut"),
        (["top_k=128"], "must be below"),
        (["nonsense=1"], "has no setting 'nonsense'"),
    ):
        options = [option for each in settings for option in ("--set", each)]
        result = CliRunner().invoke(app, [*common, "--out", str(tmp_path / "out"), *options])
        assert result.exit_code == 2
        assert message in result.stderr


def test_a_model_that_is_no_llama_is_refused_before_anything_is_made(
    root: Path, home: Home, tmp_path: Path
) -> None:
    tiny_model("qwen2", tmp_path / "qwen")
    with pytest.raises(UserError, match="Llama without biases"):
        derive(root, home, tmp_path / "out", tmp_path / "qwen")
    assert not (home.root / "moe").exists()


def test_the_training_text_is_never_the_test_text(root: Path, data_root: Path) -> None:
    for each in (root, data_root):
        assert not any("test" in name or "valid" in name for name in training_files(each))


def test_windows_are_mixed_disjoint_and_without_licences(root: Path) -> None:
    tokenizer = tiny_tokenizer()
    text = read_training_text(root, tokenizer, TRAINING)
    again = read_training_text(root, tokenizer, TRAINING)
    assert torch.equal(text.training, again.training)
    assert torch.equal(text.calibration, text.training[:8])
    shown = tokenizer.batch_decode(torch.cat([text.training, text.validation]))
    assert not any("ZZZZ" in window for window in shown)
    held = {tuple(window.tolist()) for window in text.validation}
    assert held.isdisjoint(tuple(window.tolist()) for window in text.training)
    wiki = (root / "wikitext2" / "wiki.train.raw.head.txt").read_text()
    share = sum(window in wiki for window in shown) / len(shown)
    assert share == pytest.approx(TRAINING.wiki_share, abs=0.06)


def test_settings_are_split_by_name() -> None:
    shape, training = parse_settings({"top_k": 8, "steps": 3})
    assert (shape.top_k, training.steps) == (8, 3)


def test_energies_are_shares_of_the_output_each_neuron_carries() -> None:
    generator = torch.Generator().manual_seed(0)
    gated, down = torch.randn(5, 80, generator=generator), torch.rand(80, generator=generator)
    energy = energies(gated, down)
    token, neuron = 3, 7
    own = (gated[token, neuron] * down[neuron]) ** 2
    assert float(energy[token, neuron]) == pytest.approx(
        float(own / sum((gated[token] * down) ** 2)), rel=1e-5
    )
    order = torch.from_numpy(group_neurons(energy, SHAPE))
    assert sorted(order.tolist()) == list(range(80))
    ordered = energy[:, order]
    slow = [[float(ordered[t, 32 + 6 * e : 38 + 6 * e].sum()) for e in range(8)] for t in range(5)]
    np.testing.assert_allclose(expert_energies(ordered, SHAPE).numpy(), slow, rtol=1e-5)
    for chosen, row in zip(oracle_choice(ordered, SHAPE), slow, strict=True):
        assert set(chosen.nonzero().flatten().tolist()) == set(np.argsort(row)[-2:].tolist())
    assert captured_share(ordered, SHAPE, torch.ones(5, 8)) == pytest.approx(1.0, abs=1e-5)


def test_clustering_finds_neurons_that_fire_together() -> None:
    rng = np.random.default_rng(0)
    causes = rng.random((8, 400)) < 0.2
    truth = rng.permutation(np.repeat(np.arange(8), 6))
    fires = (causes[truth] ^ (rng.random((48, 400)) < 0.02)).astype(np.float32)
    group = balanced_kmeans(fires, 8, 6, seed=0)
    assert np.bincount(group).tolist() == [6] * 8
    together = [(group[truth == each] == group[truth == each][0]).mean() for each in range(8)]
    assert np.mean(together) > 0.8


def test_a_router_knows_an_expert_that_follows_its_input() -> None:
    dense, _ = tiny_model("llama")
    mlp = dense.model.layers[0].mlp
    inputs = torch.randn(600, 48, generator=torch.Generator().manual_seed(0))
    order = torch.arange(80)
    fitted = regress_router(mlp, order, inputs, SHAPE, spread=0.5)
    logits = inputs @ fitted["router"].T
    assert float(logits.std(dim=1).mean()) == pytest.approx(0.5, rel=1e-3)
    with torch.no_grad():
        gated = mlp.act_fn(mlp.gate_proj(inputs)) * mlp.up_proj(inputs)
        energy = energies(gated, mlp.down_proj.weight.norm(dim=0))
    chosen = torch.zeros(600, 8).scatter_(1, logits.topk(2, dim=1).indices, 1.0)
    random_choice = torch.zeros(600, 8).scatter_(1, torch.rand(600, 8).topk(2, dim=1).indices, 1.0)
    assert captured_share(energy, SHAPE, chosen) > captured_share(energy, SHAPE, random_choice) + 0.005
    weights = logits.softmax(dim=1)
    coefficients = (fitted["scale"] * weights)[chosen > 0]
    assert float(coefficients.median()) == pytest.approx(1.0, abs=0.2)  # as in the dense model


def test_kl_and_its_gradient_are_those_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(50, 12, generator=generator)
    teacher = torch.randn(7, 12, generator=generator)
    hidden = torch.randn(7, 12, generator=generator, requires_grad=True)
    loss = torch.nn.functional.kl_div(
        (hidden @ head.T).log_softmax(-1),
        (teacher @ head.T).log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )
    (wanted,) = torch.autograd.grad(loss, hidden)
    value, gradient = kl_and_gradient(hidden.detach(), teacher, head)
    assert value == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-4)
