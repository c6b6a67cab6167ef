#!/usr/bin/env python3
"""Measures PyTorch beside Temper: the same V4 model in transformers, and a dense model of equal activated size.

For the workshop only; Temper needs neither. In a virtual environment: pip install torch transformers   (5.9 or later).
Build `build/bench/step` first (`make bench`), let nothing else run, then, from the repository's root:

    bench/peer_transformers.py [--case activated-30m|demo] [--threads N] [--steps N] [--seconds S] [--quick]

Every line of the table is a whole training step of the same number of tokens: forward, loss, backward, clipping to norm 1,
torch.optim.AdamW (fused); random weights, random tokens. It is the median of the timed steps in a process of its own,
whose peak resident memory stands beside it. transformers does not keep packed documents apart, so it gets them as a batch
of equal lines. Weights and state: fp32; bf16 (all in bf16: half the memory, updates below 1/256 of a weight are lost);
autocast (fp32 weights, products in bf16: what Temper does). FLOPs of the V4 model are those that `step` counts; of the
dense one 6 N T, and causal attention. Percentages are of the bf16 peak that `step` measured in this run. Experts are
grouped_mm (transformers' loop over experts was slower). Compiling the V4 model takes one to three minutes the first time,
then it is cached; --quick compiles only the bf16 models.

The last line is a JSON object: ours, peers, ratios (to the fastest peer, and to the fastest with fp32 weights as ours).
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CASES = {  # as in bench/step.cc: configuration, documents, tokens of each
    "activated-30m": ("bench/activated_30m.json", 4, 512),
    "demo": ("examples/demo/config.json", 32, 128),
}
VARIANTS = [  # model, weights, how it is run
    ("v4", "fp32", "eager"),
    ("v4", "autocast", "eager"),
    ("v4", "bf16", "eager"),
    ("v4", "bf16", "compiled"),
    ("v4", "fp32", "compiled"),
    ("v4", "autocast", "compiled"),
    ("dense", "fp32", "eager"),
    ("dense", "autocast", "eager"),
    ("dense", "bf16", "eager"),
    ("dense", "bf16", "compiled"),
    ("dense", "fp32", "compiled"),
    ("dense", "autocast", "compiled"),
]


def v4_model(config_file, dtype):
    import torch
    from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

    fields = json.loads((ROOT / config_file).read_text())
    config = DeepseekV4Config(**fields, use_cache=False, attn_implementation="eager", experts_implementation="grouped_mm")
    model = DeepseekV4ForCausalLM._from_config(config, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():
        if name.endswith("tid2eid"):  # else all tokens of the hash layers would go to expert 0
            rows = torch.rand(buffer.shape[0], config.n_routed_experts, generator=generator)
            buffer.copy_(rows.argsort(dim=1)[:, : buffer.shape[1]])
    return model


def dense_model(config_file, dtype):
    """A Llama with the hidden size, layers and vocabulary of the case; 29.9M parameters without the embedding at 30m."""
    from transformers import LlamaConfig, LlamaForCausalLM

    v4 = json.loads((ROOT / config_file).read_text())
    hidden = v4["hidden_size"]
    config = LlamaConfig(
        vocab_size=v4["vocab_size"], hidden_size=hidden, num_hidden_layers=v4["num_hidden_layers"], num_attention_heads=hidden // 64,
        intermediate_size=hidden * 11 // 4, max_position_embeddings=v4["max_position_embeddings"], use_cache=False,
        tie_word_embeddings=False, attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM._from_config(config, dtype=dtype)


def dense_flops(model, documents, length):
    """6 for every weight that a token meets (so not the embedding), and attention to the (length + 1) / 2 visible tokens."""
    config = model.config
    num_weights = sum(p.numel() for p in model.parameters()) - config.vocab_size * config.hidden_size
    attention = 12 * config.num_hidden_layers * config.hidden_size * (length + 1) / 2
    return documents * length * (6 * num_weights + attention), num_weights


def peak_resident_bytes():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])


def measure(args):
    """Runs one variant in this process and prints a JSON object."""
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config_file, documents, length = CASES[args.case]
    kind, weights, run = args.variant.split(",")
    dtype = torch.bfloat16 if weights == "bf16" else torch.float32
    model = v4_model(config_file, dtype) if kind == "v4" else dense_model(config_file, dtype)
    model.train()
    result = {"num_parameters": sum(p.numel() for p in model.parameters())}
    if kind == "dense":
        result["gflop_per_step"], result["num_active"] = dense_flops(model, documents, length)
        result["gflop_per_step"] *= 1e-9
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(0, model.config.vocab_size, (documents, length))
    forward = torch.compile(model) if run == "compiled" else model

    def step():
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=weights == "autocast"):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        result["loss"] = loss.item()
        return time.perf_counter() - start

    start = time.perf_counter()
    step(), step()
    result["warm_up_seconds"] = time.perf_counter() - start
    seconds, start = [], time.perf_counter()
    while len(seconds) < args.steps and (len(seconds) < 3 or time.perf_counter() - start < args.seconds):
        seconds.append(step())
    print(json.dumps({**result, "step_ms": 1e3 * statistics.median(seconds), "num_steps": len(seconds),
                      "tokens_per_second": documents * length / statistics.median(seconds),
                      "peak_memory_bytes": peak_resident_bytes()}))  # fmt: skip


def run_variant(args, variant):
    command = [sys.executable, __file__, "--case", args.case, "--threads", str(args.threads), "--steps", str(args.steps),
               "--seconds", str(args.seconds), "--variant", ",".join(variant)]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=args.limit,
                              env={**os.environ, "OMP_NUM_THREADS": str(args.threads)})  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"failed": f"not ready within {args.limit} s"}
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def run_ours(args):
    command = [ROOT / "build/bench/step", "--json", "--case", args.case, "--precision", "bf16", "--threads", str(args.threads)]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def print_line(name, r):
    if "failed" in r:
        print(f"{name:<36} {r['failed']}")
    else:
        print(f"{name:<36} {r['tokens_per_second']:10.0f} {r['step_ms']:10.1f} {r['percent_of_peak']:7.1f} %"
              f" {r['peak_memory_bytes'] / 2**30:8.2f} GiB", flush=True)  # fmt: skip


def ratios(ours, peers):
    """What the project asks for: tokens/s >= 10 x, memory <= 1/3, fraction of peak >= 1.5 x that of dense PyTorch."""
    fastest = lambda peers: max(peers, key=lambda p: p["tokens_per_second"])
    measured = [p for p in peers if "failed" not in p]
    v4 = [p for p in measured if p["model"] == "v4"]
    beside = lambda p: {"tokens_per_second": ours["tokens_per_second"] / p["tokens_per_second"],
                        "memory": ours["peak_memory_bytes"] / p["peak_memory_bytes"]}  # fmt: skip
    return {
        **beside(fastest(v4)),
        "with_fp32_weights": beside(fastest([p for p in v4 if p["weights"] != "bf16"])),
        "fraction_of_peak_to_dense": ours["percent_of_peak"]
        / max(p["percent_of_peak"] for p in measured if p["model"] == "dense"),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="activated-30m")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--steps", type=int, default=7, help="timed steps of a variant at most")
    parser.add_argument("--seconds", type=float, default=10, help="no further step after so long (three at least)")
    parser.add_argument("--limit", type=float, default=240, help="a variant that takes longer than so many seconds is given up")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        return measure(args)

    ours = run_ours(args)
    peak = ours["peak_gflop_per_second"]
    print(f"{args.case}: {ours['machine']}, peak {peak:.0f} GFLOP/s (bf16)")
    print(f"{'':<36} {'tokens/s':>10} {'ms a step':>10} {'of peak':>9} {'memory':>12}")
    print_line("temper, bf16 and fp32 weights", ours)
    peers = []
    for variant in VARIANTS:
        if args.quick and variant[2] == "compiled" and variant[1] != "bf16":
            continue
        r = {"model": variant[0], "weights": variant[1], "run": variant[2], **run_variant(args, variant)}
        if "failed" not in r:
            gflop = r.get("gflop_per_step", ours["gflop_per_step"])
            r["percent_of_peak"] = 100 * gflop / (1e-3 * r["step_ms"]) / peak
        peers.append(r)
        print_line(" ".join(variant), r)
    print(json.dumps({"case": args.case, "ours": ours, "peers": peers, "ratios": ratios(ours, peers)}))


if __name__ == "__main__":
    main()
