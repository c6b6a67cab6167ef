// RUN.toml: everything that describes a run. The keys, their help and their limits stand in run_keys.cc; a key that is
// not there is refused.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "objective/objective.h"

namespace temper::train {

struct RunConfig {
  struct Model {
    std::string path;           // HF directory to start from
    std::string config;         // or a config.json (or its directory) for a random start
    std::string tokenizer;      // tokenizer.json or its directory; empty: that of path
    int64_t seed = 0;           // of the random start
    std::string allow_missing;  // regular expression of parameters that may be missing in path
  } model;
  struct Data {
    std::vector<std::string> train, eval;  // files or patterns
    std::string format = "auto", mode = "chat", effort = "none", prompt_format = "chat", prose;
    bool train_on_history = true;
    int64_t max_document = 0;  // tokens; 0: tokens_per_micro_batch
    std::string over_long = "cut", no_loss = "error";
  } data;
  struct Train {
    std::string objective = "sft", loss_reduction = "token";
    bool dft = false;
    std::string precision = "bf16";
    int64_t tokens_per_micro_batch = 2048, gradient_accumulation = 1;
    int64_t steps = 0, epochs = 0;
    double max_seconds = 0;
    std::string warning_signal = "USR1";
    double stop_before_end = 0;
    int64_t seed = 0;
    std::string recompute = "none", indexer = "frozen";
    std::vector<std::string> freeze;
    double mtp_weight = 0.1, balance_weight = 1e-4, indexer_weight = 1, bias_update_speed = 0;
  } train;
  struct Optimizer {
    double lr = 5e-6, min_lr = 5e-7;
    std::string schedule = "cosine", decay = "cosine";
    int64_t warmup_steps = -1, warmup_offset = 0, decay_steps = 0;
    double warmup_ratio = 0.03;
    std::array<double, 2> betas = {0.9, 0.95};
    double eps = 1e-8, weight_decay = 0.1, max_grad_norm = 1;
  } optimizer;
  struct Guard {
    std::string on_nonfinite = "skip_step", on_spike = "report";
    double loss_sigmas = 6, grad_norm_factor = 10;
  } guard;
  struct Run {
    bool exact = false;
  } run;
  struct Layout {
    int64_t dp = 0, ep = 1, pp = 1, cp = 1, tp = 1, zero = 1, expert_rows = 0, rebalance = 0;
    std::string schedule = "1f1b";
    int64_t chunks = 1;
    bool overlap = false, is_auto = false;
    std::vector<std::string> given;  // keys of this section that the file or an override gives: "layout.dp"
    // Of a rank, where the layout is chosen: GiB (0: the machine's share), and how fast it is, as plan::RankSpeed, in
    // TFLOP/s and GB/s.
    double memory = 0, tflops = 0.4, bandwidth = 40, link = 5;
    double deadline = 60;
  } layout;
  struct Output {
    std::string dir;
    std::string dtype = "source";
    int64_t save_every = 0, log_every = 1, eval_every = 0;
  } output;
  struct Checkpoint {
    int64_t every = 50, keep_last = 2, keep_every = 0, keep_best = 0;
    bool staging = true, verify = false;
  } checkpoint;
  struct Eval {
    int64_t max_examples = 0, samples = 0, max_new_tokens = 64;
    double temperature = 0, top_p = 1;
  } eval;
};

// Reads a run file and then the overrides "section.key=value", whose values are TOML (a bare word is taken as a
// string). Throws: kNotFound; kCorrupt with line and column where the file is not TOML; kInvalidArgument for an unknown
// key (with file, line and the nearest known key), a wrong type (key, found, expected), a value out of range, or keys
// that contradict each other; kUnsupported for objectives that this build does not have.
RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides);

// The same from text; origin stands for the file in messages.
RunConfig parse_run_config(const std::string& text, const std::string& origin,
                           const std::vector<std::string>& overrides);

// The objective that the run names. Throws as objective::make_objective.
std::unique_ptr<objective::Objective> make_objective(const RunConfig& config);

// Reference of all keys, as `temper train --help-keys` prints it: key, type, default, meaning.
std::string help_keys();

}  // namespace temper::train
