"""The derived MoE on a tiny random Llama: identities, formats, bad input. Its numbers mean nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import UserError
from backend.models.derived_moe import load_derived
from backend.models.derived_moe.artefacts import (
    MANIFEST,
    PARTS,
    MoEManifest,
    checked_manifest,
    read_manifest,
    read_parts,
    write_artefact,
)
from backend.models.derived_moe.assembly import assemble
from backend.models.derived_moe.masked import masked_model, set_trained, trained_tensors
from backend.models.derived_moe.settings import MoEShape
from tests.models_tiny import VOCABULARY, tiny_model

SHAPE = MoEShape(shared=32, experts=8, top_k=2)  # of 80 neurons: experts of 6
LAYERS, NEURONS = 3, 80


@pytest.fixture(scope="module")
def dense() -> Any:
    return tiny_model("llama")[0]


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def orders() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.stack([torch.randperm(NEURONS, generator=generator) for _ in range(LAYERS)])


@pytest.fixture
def trained(dense: Any, orders: torch.Tensor) -> Any:
    """A masked model whose every trained tensor is random, as no training would leave it."""
    model = masked_model(dense, orders, SHAPE, rank=4).eval()
    generator = torch.Generator().manual_seed(3)
    tensors = trained_tensors(model)
    spread = {"router": 0.3, "scale": 1.0, "norm.attention": 0.1, "norm.mlp": 0.1}
    set_trained(
        model,
        {
            name: tensor + spread.get(name, 0.05) * torch.randn(tensor.shape, generator=generator)
            for name, tensor in tensors.items()
        },
    )
    return model


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return found


def parts_of(model: Any, orders: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"neurons": orders, **trained_tensors(model)}


def test_all_experts_at_equal_weights_are_the_dense_model(
    dense: Any, orders: torch.Tensor, ids: torch.Tensor
) -> None:
    moe = assemble(dense, SHAPE, {"neurons": orders})
    for layer in moe.model.layers:
        layer.mlp.gate.top_k = SHAPE.experts
    torch.testing.assert_close(logits(moe, ids), logits(dense, ids), atol=1e-4, rtol=1e-4)


def test_with_k_experts_it_is_not_the_dense_model(
    dense: Any, orders: torch.Tensor, ids: torch.Tensor
) -> None:
    moe = assemble(dense, SHAPE, {"neurons": orders})
    assert (logits(moe, ids) - logits(dense, ids)).abs().max() > 1e-2


def test_masked_arithmetic_with_all_on_is_the_dense_model(
    dense: Any, orders: torch.Tensor, ids: torch.Tensor
) -> None:
    masked = masked_model(dense, orders, SHAPE, rank=4, all_on=True)
    torch.testing.assert_close(logits(masked, ids), logits(dense, ids), atol=1e-4, rtol=1e-4)


def test_the_assembled_model_is_the_trained_one(
    dense: Any, trained: Any, orders: torch.Tensor, ids: torch.Tensor
) -> None:
    moe = assemble(dense, SHAPE, parts_of(trained, orders))
    torch.testing.assert_close(logits(moe, ids), logits(trained, ids), atol=1e-4, rtol=1e-4)


def test_the_assembled_model_is_the_stock_class(dense: Any, trained: Any, orders: torch.Tensor) -> None:
    from transformers import Qwen2MoeForCausalLM

    moe = assemble(dense, SHAPE, parts_of(trained, orders))
    assert type(moe) is Qwen2MoeForCausalLM
    config = moe.config
    assert (config.num_experts, config.num_experts_per_tok, config.norm_topk_prob) == (8, 2, False)
    assert (config.moe_intermediate_size, config.shared_expert_intermediate_size) == (6, 32)
    assert not any(parameter.requires_grad for parameter in moe.parameters())
    assert all(parameter.device.type == "cpu" for parameter in moe.parameters())
    assert moe.lm_head.weight is moe.model.embed_tokens.weight  # tied, as in the dense model
    assert all((layer.mlp.shared_expert_gate.weight == 0).all() for layer in moe.model.layers)


def test_training_chooses_through_a_straight_through_gradient(
    dense: Any, orders: torch.Tensor, ids: torch.Tensor
) -> None:
    masked = masked_model(dense, orders, SHAPE, rank=0).train()
    moe = masked.model.layers[0].mlp
    with torch.no_grad():
        moe.router.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(1))
    factors = moe.factors(x)
    masked.eval()
    torch.testing.assert_close(factors, moe.factors(x))  # the forward pass is the hard choice
    assert ((factors.abs() > 1e-9).sum(dim=-1) == SHAPE.top_k).all()
    unchosen = int((factors[0].abs() <= 1e-9).nonzero()[0])
    factors[0, unchosen].backward()
    assert moe.router.grad is not None
    assert moe.router.grad[unchosen].abs().sum() > 0


def test_the_artefact_keeps_what_it_was_given(tmp_path: Path, trained: Any, orders: torch.Tensor) -> None:
    written = write(tmp_path, trained, orders)
    manifest = read_manifest(tmp_path)
    assert manifest == written
    tensors = read_parts(tmp_path, manifest)
    assert torch.equal(tensors["neurons"].long(), orders)
    for name, tensor in trained_tensors(trained).items():
        torch.testing.assert_close(tensors[name].float(), tensor, atol=2e-3, rtol=2e-3)
    assert (tmp_path / PARTS).stat().st_mode & 0o044


def test_an_artefact_loads(
    tmp_path: Path, dense: Any, trained: Any, orders: torch.Tensor, ids: torch.Tensor
) -> None:
    write(tmp_path, trained, orders)
    near = (logits(load_derived(dense, tmp_path), ids) - logits(trained, ids)).abs().mean()
    assert near < 0.02  # float16 parts


def test_the_identity_follows_what_decides_the_weights(
    tmp_path: Path, trained: Any, orders: torch.Tensor
) -> None:
    manifest = write(tmp_path, trained, orders)
    values = json.loads((tmp_path / MANIFEST).read_text())
    assert MoEManifest(**(values | {"report": {"perplexity": 1.0}})).identity == manifest.identity
    for change in ({"base_sha256": "f" * 64}, {"parts_sha256": "e" * 64}, {"shape": {"top_k": 3}}):
        assert MoEManifest(**(values | change)).identity != manifest.identity


def test_a_damaged_artefact_is_refused(
    tmp_path: Path, dense: Any, trained: Any, orders: torch.Tensor
) -> None:
    write(tmp_path, trained, orders)
    parts = tmp_path / PARTS
    raw = bytearray(parts.read_bytes())
    raw[-1] ^= 1
    parts.write_bytes(bytes(raw))
    with pytest.raises(UserError, match=r"not the file that moe\.json names"):
        load_derived(dense, tmp_path)
    parts.unlink()
    with pytest.raises(UserError, match="absent"):
        load_derived(dense, tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_derived(dense, tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(UserError, match="There is no"):
        load_derived(dense, tmp_path)


def test_another_format_is_refused(tmp_path: Path, trained: Any, orders: torch.Tensor) -> None:
    write(tmp_path, trained, orders)
    values = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(values | {"format_version": 99}))
    with pytest.raises(UserError, match="has format 99"):
        read_manifest(tmp_path)


def test_another_dense_model_is_refused(tmp_path: Path, trained: Any, orders: torch.Tensor) -> None:
    manifest = write(tmp_path, trained, orders)
    with pytest.raises(UserError, match="was derived from tiny"):
        checked_manifest(tmp_path, "b" * 64, manifest.identity)
    with pytest.raises(UserError, match="not the artefact that the catalog pins"):
        checked_manifest(tmp_path, manifest.base_sha256, "c" * 64)
    smaller = tiny_model("llama", num_hidden_layers=2)[0]
    with pytest.raises(UserError, match="derived from another model"):
        load_derived(smaller, tmp_path)
    with pytest.raises(UserError, match="Llama without biases"):
        load_derived(tiny_model("qwen2")[0], tmp_path)


def test_a_shape_has_to_leave_a_choice_and_divide() -> None:
    with pytest.raises(UserError, match="must be below"):
        MoEShape.parse({"shared": 32, "experts": 8, "top_k": 8}, "shape")
    with pytest.raises(ValueError, match="cannot be cut"):
        MoEShape(shared=33, experts=8, top_k=2).expert_size(NEURONS)
    assert SHAPE.share_on(NEURONS) == pytest.approx((32 + 12) / 80)


def write(folder: Path, model: Any, orders: torch.Tensor) -> MoEManifest:
    manifest = MoEManifest("tiny-moe", "tiny", "a" * 64, "", SHAPE.model_dump())
    return write_artefact(folder, manifest, parts_of(model, orders))
