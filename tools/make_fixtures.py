#!/usr/bin/env python3
"""Makes tests/fixtures/v4: tiny DeepSeek-V4 models with the answers of transformers' DeepseekV4ForCausalLM.

For the workshop only: needs torch, transformers (5.9 or later) and safetensors. Temper and its tests need only the outputs.

    tools/make_fixtures.py [--out tests/fixtures/v4] [NAME ...]

Each folder holds
  config.json, model.safetensors   as save_pretrained writes them (fp32; official tensor names unless the case says otherwise)
  golden.safetensors
    input_ids.<i>   i64 [T]      one document per line i; documents have different lengths and are never padded or packed,
                                 because transformers leaks between packed documents (architecture page 5.8)
    labels.<i>      i64 [T]      as transformers takes them: the label of position t is labels[t + 1]; -100 = no loss
    logits.<i>      f32 [T, V]   fp32, eager attention, eager experts, no cache
    loss            f32 [1]      token losses of all lines summed, divided by the number of labelled tokens
    grad.<name>     f32          gradient of that loss for every named_parameters() entry that has one. Computed in float64 and
                                 rounded once: some true gradients (the comb of layer 0) vanish, and in fp32 would be noise.
                                 Indexer tensors have none: the language loss does not reach them.
    curve.loss      f32 [20]     loss before each of 20 AdamW steps on the same lines, in fp32
    curve.lr        f32 [1]      its constant learning rate; betas 0.9, 0.95, eps 1e-8, decay 0.1 on matrices, no clipping

Every parameter is moved away from its starting value, so that no term is hidden behind a zero or a one. A seed is taken only if
every discrete choice (experts, index entries), in the evaluation and along the whole curve, beats the runner-up by more than
fp32 noise (otherwise two correct programs may choose differently), and if transformers' own fp32 gradients and curve are within
1e-5 of float64. More than one expert per token: with one the router's gradient is zero in exact arithmetic, and AdamW turns
its rounding noise into steps of full size.
"""

import argparse
import contextlib
import json
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as modeling

S, CSA, HCA = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}
CURVE_STEPS, DECAY = 20, 0.1
MIN_GAP, MIN_CURVE_GAP, FP32_NOISE = 1e-4, 2e-6, 1e-5

BASE = dict(
    vocab_size=48, hidden_size=24, moe_intermediate_size=10, num_attention_heads=4, head_dim=12,
    partial_rotary_factor=4 / 12, q_lora_rank=8, o_groups=2, o_lora_rank=6, num_experts_per_tok=2, n_routed_experts=5,
    index_n_heads=4, index_head_dim=8, index_topk=2, sliding_window=5, swiglu_limit=1.0, routed_scaling_factor=1.5,
    max_position_embeddings=1024, rms_norm_eps=1e-6, hc_eps=1e-6, hc_sinkhorn_iters=20, hc_mult=4,
)  # fmt: skip

# name: what differs from BASE; "seed" is the first one tried, "lines" are document lengths, "masked" the share of tokens
# without a label.
CASES = {
    # Window attention alone, one output group, odd sizes; first layer routed by token id.
    "sliding": dict(seed=1, layer_types=[S, S], mlp_layer_types=["hash_moe", "moe"], hidden_size=22, num_attention_heads=3, o_groups=1,
                    head_dim=10, partial_rotary_factor=6 / 10, moe_intermediate_size=7, lines=[31, 2, 17], masked=0.0),
    # Sparse attention at the released rate with YaRN; more entries than top-k.
    "csa_yarn": dict(seed=14, layer_types=[CSA, CSA], mlp_layer_types=["moe", "moe"], rope_parameters=YARN, index_topk=3, lines=[43, 14],
                     masked=0.3),
    # Other sparse rate, no YaRN, two residual streams, three groups, six heads.
    "csa_rate3": dict(seed=136, layer_types=[S, CSA, CSA], mlp_layer_types=["hash_moe", "hash_moe", "moe"], hc_mult=2, o_groups=3,
                      num_attention_heads=6, compress_rates={CSA: 3, HCA: 128}, n_routed_experts=7, num_experts_per_tok=3,
                      moe_intermediate_size=8, lines=[37, 20], masked=0.0),
    # Heavy compression at rate 8 with YaRN.
    "hca_rate8": dict(seed=1, layer_types=[HCA, HCA], mlp_layer_types=["hash_moe", "moe"], compress_rates={CSA: 4, HCA: 8},
                      rope_parameters=YARN, num_attention_heads=2, swiglu_limit=0.6, lines=[53, 7, 16], masked=0.5),
    # The three kinds together, HCA rate 16, tensors under the names of transformers instead of the official ones.
    "mixed_rate16": dict(seed=49, layer_types=[S, CSA, HCA], mlp_layer_types=["moe", "hash_moe", "moe"], hidden_size=20, head_dim=8,
                         partial_rotary_factor=4 / 8, compress_rates={CSA: 4, HCA: 16}, rope_parameters=YARN, sliding_window=7,
                         routed_scaling_factor=2.5, moe_intermediate_size=8, lines=[61, 33], masked=0.2, hf_names=True),
    # The order of V4-Pro, rates 2 and 32.
    "pro_order_rate32": dict(seed=3, layer_types=[HCA, CSA, HCA], mlp_layer_types=["hash_moe", "moe", "moe"], hidden_size=18,
                             compress_rates={CSA: 2, HCA: 32}, index_topk=6, index_n_heads=8, index_head_dim=4, n_routed_experts=4,
                             moe_intermediate_size=9, o_groups=4, o_lora_rank=3, lines=[67, 33], masked=0.0),
    # config.json in the official spelling with its rates 4 and 128, and an MTP entry behind the main layers.
    "official_spelling": dict(seed=772, official=dict(compress_ratios=[0, 4, 128, 0], num_hash_layers=1, qk_rope_head_dim=4,
                                            num_nextn_predict_layers=1,
                                            rope_scaling=dict(type="yarn", factor=16, beta_fast=32, beta_slow=1,
                                                              original_max_position_embeddings=64)),
                              hidden_size=16, head_dim=8, num_hidden_layers=3, moe_intermediate_size=8, index_topk=4,
                              sliding_window=9, lines=[141, 24], masked=0.6),
}  # fmt: skip


def make_config(case):
    fields = {**BASE, **{k: v for k, v in case.items() if k not in ("seed", "lines", "masked", "hf_names", "official")}}
    if "official" in case:
        official = dict(case["official"])
        scaling = official.pop("rope_scaling")
        del fields["partial_rotary_factor"]
        fields.update(official, rope_parameters={"rope_type": "yarn", **{k: v for k, v in scaling.items() if k != "type"}})
    else:
        fields["num_hidden_layers"] = len(fields["layer_types"])
    # A fresh copy of nested dicts: the config class writes into them.
    return DeepseekV4Config(**json.loads(json.dumps(fields)), use_cache=False, attn_implementation="eager")


def official_config(case, config):
    """config.json as the released models spell it (architecture page 1.1)."""
    names = [k for k in BASE if k != "partial_rotary_factor"] + ["num_hidden_layers", "compress_rope_theta", "rope_theta"]
    fields = {"architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4"}
    fields.update({name: getattr(config, name) for name in names})
    fields.update(case["official"], num_key_value_heads=1, n_shared_experts=1, scoring_func="sqrtsoftplus", topk_method="noaux_tc",
                  norm_topk_prob=True, hidden_act="silu", attention_bias=False, attention_dropout=0.0, tie_word_embeddings=False,
                  initializer_range=0.02, bos_token_id=0, eos_token_id=1, torch_dtype="float32")  # fmt: skip
    return fields


def fill(model, generator):
    """Values of ordinary size, every one away from its usual start."""
    uniform = lambda shape, scale, offset=0.0: offset + scale * (2 * torch.rand(shape, generator=generator) - 1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight") or name.endswith("layernorm.weight") or name.endswith("scale"):
                p.copy_(uniform(p.shape, 0.2, 1.0))
            elif "embed_tokens" in name:
                p.copy_(uniform(p.shape, 1.0))
            elif name.endswith("base"):
                p.copy_(uniform(p.shape, 0.3))
            elif name.endswith("sinks") or name.endswith("position_bias"):
                p.copy_(uniform(p.shape, 0.5))
            elif name.endswith("fn"):
                p.copy_(uniform(p.shape, 2.4 * p.shape[-1] ** -0.5))
            else:
                p.copy_(uniform(p.shape, 1.8 * p.shape[-1] ** -0.5))
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.copy_(uniform(b.shape, 0.05))
            elif name.endswith("tid2eid"):
                num_experts = model.config.n_routed_experts
                rows = [torch.randperm(num_experts, generator=generator)[: b.shape[1]] for _ in range(b.shape[0])]
                b.copy_(torch.stack(rows))


def make_lines(case, config, generator):
    lines = []
    for length in case["lines"]:
        ids = torch.randint(0, config.vocab_size, (length,), generator=generator)
        labels = ids.clone()
        labels[torch.rand(length, generator=generator) < case["masked"]] = -100
        lines.append((ids, labels))
    return lines


def summed_loss(model, lines):
    """Sum of token losses, their number, and the logits of each line."""
    total, count, logits = 0.0, 0, []
    for ids, labels in lines:
        out = model(input_ids=ids[None]).logits[0]
        logits.append(out.detach())
        targets = labels[1:]
        total = total + torch.nn.functional.cross_entropy(out[:-1], targets, ignore_index=-100, reduction="sum")
        count += int((targets != -100).sum())
    return total / count, logits


def decays(name, parameter):
    """Temper's decay groups: matrices, but no norm, bias, sink or position bias, and nothing of the indexer, which is frozen."""
    return parameter.ndim >= 2 and not name.endswith("position_bias") and ".indexer." not in name


def train_curve(model, lines, lr):
    trained = [(n, p) for n, p in model.named_parameters() if ".indexer." not in n]
    groups = [{"params": [p for n, p in trained if decays(n, p)], "weight_decay": DECAY},
              {"params": [p for n, p in trained if not decays(n, p)], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for _ in range(CURVE_STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss, _ = summed_loss(model, lines)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@contextlib.contextmanager
def smallest_gap(out):
    """Records in out[0] the smallest distance between the last chosen and the first refused value of any top-k."""
    out[:] = [float("inf")]
    original, original_method = torch.topk, torch.Tensor.topk

    def watched(x, k, dim=-1, **kwargs):
        if k < x.shape[-1]:
            best = original(x.detach(), k + 1, dim=-1).values
            gap = best[..., k - 1] - best[..., k]
            gap = gap[torch.isfinite(gap)]
            if gap.numel():
                out[0] = min(out[0], gap.min().item())
        return original(x, k, dim=dim, **kwargs)

    torch.topk, torch.Tensor.topk = watched, watched
    try:
        yield
    finally:
        torch.topk, torch.Tensor.topk = original, original_method


@contextlib.contextmanager
def float64_everywhere():
    """transformers' V4 code asks for float32 in places; inside this context those places compute in float64."""

    class Torch64:
        float32 = float = torch.float64

        def __getattr__(self, name):
            return getattr(torch, name)

    original = torch.Tensor.float
    modeling.torch, torch.Tensor.float = Torch64(), torch.Tensor.double
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        modeling.torch, torch.Tensor.float = torch, original
        torch.set_default_dtype(torch.float32)


def answers_in_float64(config, state, lines, lr):
    """Loss, gradients (rounded to fp32) and training curve."""
    with float64_everywhere():
        model = DeepseekV4ForCausalLM(config).double()
        model.load_state_dict({k: v.double() if v.is_floating_point() else v for k, v in state.items()})
        loss, _ = summed_loss(model, lines)
        loss.backward()
        grads = {n: p.grad.to(torch.float32) for n, p in model.named_parameters() if p.grad is not None}
        return loss.item(), grads, train_curve(model, lines, lr)


def build(name, case, seed, lr=2e-3):
    """One attempt with one seed; None if fp32 noise could change its answers."""
    generator = torch.Generator().manual_seed(seed)
    config = make_config(case)
    model = DeepseekV4ForCausalLM(config).eval()
    model.set_experts_implementation("eager")
    fill(model, generator)
    lines = make_lines(case, config, generator)
    state = {k: v.clone() for k, v in model.state_dict().items()}

    gap = []
    with smallest_gap(gap):
        loss, logits = summed_loss(model, lines)
    if gap[0] < MIN_GAP:
        return None
    loss.backward()
    fp32 = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    loss64, grads, curve64 = answers_in_float64(config, state, lines, lr)
    assert abs(loss.item() - loss64) < 1e-5 * loss64, (loss.item(), loss64)
    largest = max(g.abs().max().item() for g in grads.values())
    if any((g - fp32[n]).abs().max() > FP32_NOISE * max(g.abs().max().item(), 1e-3 * largest) for n, g in grads.items()):
        return None

    curve_gap = []
    with smallest_gap(curve_gap):
        curve = train_curve(model, lines, lr)
    if curve_gap[0] < MIN_CURVE_GAP or any(abs(a - b) > FP32_NOISE * b for a, b in zip(curve, curve64)):
        return None
    model.load_state_dict(state)
    golden = {"loss": loss.detach().reshape(1), "curve.loss": torch.tensor(curve), "curve.lr": torch.tensor([lr])}
    for i, ((ids, labels), line_logits) in enumerate(zip(lines, logits)):
        golden.update({f"input_ids.{i}": ids, f"labels.{i}": labels, f"logits.{i}": line_logits})
    golden.update({f"grad.{n}": g.contiguous() for n, g in grads.items()})
    print(f"{name}: seed {seed}, {sum(p.numel() for p in model.parameters())} parameters, loss {loss.item():.6f} -> {curve[-1]:.6f}, "
          f"gap {gap[0]:.1e}, on the curve {curve_gap[0]:.1e}")  # fmt: skip
    return model, golden


def write(folder, case, model, golden):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, save_original_format=not case.get("hf_names", False))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if "official" in case:
        (folder / "config.json").write_text(json.dumps(official_config(case, model.config), indent=2) + "\n")
    save_file(golden, folder / "golden.safetensors")
    for path in folder.iterdir():
        path.chmod(0o644)
    # What was written is the model that was measured.
    again = DeepseekV4ForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32, use_cache=False)
    again.set_experts_implementation("eager")
    with torch.no_grad():
        logits = again(input_ids=load_file(folder / "golden.safetensors")["input_ids.0"][None]).logits[0]
    assert torch.equal(logits, golden["logits.0"]), "the saved model gives other logits"


def main():
    parser = argparse.ArgumentParser(description="Makes the fixtures of tests/fixtures/v4.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "tests/fixtures/v4")
    parser.add_argument("names", nargs="*", help="only these cases")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, case in CASES.items():
        if args.names and name not in args.names:
            continue
        built = next(b for seed in range(case["seed"], 10000) if (b := build(name, case, seed)) is not None)
        write(args.out / name, case, *built)


if __name__ == "__main__":
    main()
