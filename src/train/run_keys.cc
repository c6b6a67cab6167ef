#include "train/run_keys.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <limits>

#include "data/record_formats.h"

namespace temper::train {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <class... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;

std::string quoted_list(const std::vector<std::string_view>& words, std::string_view last_joint) {
  std::string out;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) out += i + 1 == words.size() ? last_joint : ", ";
    out += fmt::format("\"{}\"", words[i]);
  }
  return out;
}

}  // namespace

std::vector<Key> run_keys(RunConfig& c) {
  return {
      {"model.path", &c.model.path, "model directory (Hugging Face) to start from", Effect::kNone},
      {"model.config", &c.model.config, "instead of path: config.json of a model that starts from random weights",
       Effect::kNone},
      {"model.tokenizer", &c.model.tokenizer, "tokenizer.json or its directory; empty: the one in model.path",
       Effect::kNone},
      {"model.allow_missing", &c.model.allow_missing,
       "regular expression: parameters that model.path may lack; they start as in a random model"},
      {"model.seed", IntegerField{&c.model.seed, 0}, "seed of the random start"},

      {"data.train", &c.data.train, "training files (.jsonl, .txt, .md); * and ? in a file name match", Effect::kNone},
      {"data.eval", &c.data.eval, "held-out files, for the loss measured by output.eval_every and at the end",
       Effect::kNone},
      {"data.format", ChoiceField{&c.data.format, {data::kRecordFormatNames.begin(), data::kRecordFormatNames.end()}},
       "how records are written; auto: as their fields tell"},
      {"data.mode", ChoiceField{&c.data.mode, {"chat", "thinking"}}, "mode in which conversations are rendered"},
      {"data.effort", ChoiceField{&c.data.effort, {"none", "low", "high", "max"}},
       "reasoning effort that conversations in thinking mode ask for; max needs a block of prose"},
      {"data.prose", &c.data.prose,
       "file with the model's blocks of prose (tools, response format, effort); empty: model.path's encoding/",
       Effect::kNone},
      {"data.prompt_format", ChoiceField{&c.data.prompt_format, {"chat", "raw"}},
       "prompt and completion strings: as turns of a conversation, or one after the other"},
      {"data.train_on_history", &c.data.train_on_history, "train all assistant messages, not the last one only"},
      {"data.max_document", IntegerField{&c.data.max_document, 0},
       "longest example in tokens; 0: train.tokens_per_micro_batch"},
      {"data.over_long", ChoiceField{&c.data.over_long, {"cut", "drop"}}, "what happens to longer examples"},
      {"data.no_loss", ChoiceField{&c.data.no_loss, {"error", "drop"}},
       "what happens to examples without a trained token"},

      {"train.objective", &c.train.objective, "pretrain | sft"},
      {"train.loss_reduction", ChoiceField{&c.train.loss_reduction, {"token", "sample"}},
       "whether every trained token or every example weighs the same"},
      {"train.dft", &c.train.dft, "weigh each token's loss by its probability (dynamic fine-tuning)"},
      {"train.precision", ChoiceField{&c.train.precision, {"fp32", "bf16"}},
       "bf16: bf16 compute, fp32 accumulation, master weights, moments and gradients"},
      {"train.tokens_per_micro_batch", IntegerField{&c.train.tokens_per_micro_batch, 1}, "tokens of one packed row"},
      {"train.gradient_accumulation", IntegerField{&c.train.gradient_accumulation, 1},
       "micro-batches per step, those of all ranks together"},
      {"train.steps", IntegerField{&c.train.steps, 0}, "optimizer steps; or train.epochs"},
      {"train.epochs", IntegerField{&c.train.epochs, 0}, "passes over the training data; or train.steps"},
      {"train.max_seconds", RealField{&c.train.max_seconds, 0, kNoLimit},
       "stop after the step that passes this time, whatever the schedule; 0: no limit", Effect::kNone},
      {"train.warning_signal", ChoiceField{&c.train.warning_signal, {"USR1", "USR2", "HUP", "none"}},
       "signal by which a batch system announces the end (sbatch --signal=USR1@120): the run saves its state and "
       "stops, as "
       "on INT and TERM",
       Effect::kNone},
      {"train.stop_before_end", RealField{&c.train.stop_before_end, 0, kNoLimit},
       "under Slurm: save and stop so many seconds before the job's end (SLURM_JOB_END_TIME); 0: not", Effect::kNone},
      {"train.seed", IntegerField{&c.train.seed, 0}, "seed of the order of examples"},
      {"train.recompute", ChoiceField{&c.train.recompute, {"none", "block", "full"}},
       "what backward rebuilds instead of keeping: more saves memory and costs time"},
      {"train.freeze", &c.train.freeze, "parameters that are not trained: names, in which * stands for any characters"},
      {"train.mtp_weight", RealField{&c.train.mtp_weight, 0, kNoLimit},
       "weight of the multi-token-prediction loss, where the model has that block; 0: the block stays as it is"},
      {"train.balance_weight", RealField{&c.train.balance_weight, 0, kNoLimit},
       "weight of the experts' sequence balance loss; a sequence is a packed row"},
      {"train.bias_update_speed", RealField{&c.train.bias_update_speed, 0, kNoLimit},
       "step by which a router's correction bias follows the experts' loads; 0: biases stay as they are"},
      {"train.indexer", ChoiceField{&c.train.indexer, {"frozen", "train", "warm-up"}},
       "the lightning indexer: left as it is; taught to follow the attention beside the model; or taught alone, with "
       "attention to every entry"},
      {"train.indexer_weight", RealField{&c.train.indexer_weight, 0, kNoLimit},
       "weight of the indexer's loss, where it is trained"},

      {"optimizer.lr", RealField{&c.optimizer.lr, 0, kNoLimit}, "highest learning rate"},
      {"optimizer.min_lr", RealField{&c.optimizer.min_lr, 0, kNoLimit}, "learning rate at the end"},
      {"optimizer.schedule", ChoiceField{&c.optimizer.schedule, {"constant", "linear", "cosine", "wsd"}},
       "shape of the learning rate after warm-up"},
      {"optimizer.decay", ChoiceField{&c.optimizer.decay, {"linear", "cosine", "minus-sqrt", "exponential"}},
       "shape of wsd's decay"},
      {"optimizer.decay_steps", IntegerField{&c.optimizer.decay_steps, 0}, "length of wsd's decay"},
      {"optimizer.warmup_steps", IntegerField{&c.optimizer.warmup_steps, -1}, "length of warm-up; -1: by warmup_ratio"},
      {"optimizer.warmup_ratio", RealField{&c.optimizer.warmup_ratio, 0, 1}, "warm-up as a share of all steps"},
      {"optimizer.warmup_offset", IntegerField{&c.optimizer.warmup_offset, 0},
       "0: the first step's rate is 0, as in Hugging Face and Megatron; 1: it is lr / warmup_steps"},
      {"optimizer.betas", &c.optimizer.betas, "AdamW: decay of the two moments"},
      {"optimizer.eps", RealField{&c.optimizer.eps, 0, kNoLimit}, "AdamW: added to the root of the second moment"},
      {"optimizer.weight_decay", RealField{&c.optimizer.weight_decay, 0, kNoLimit},
       "decoupled decay of matrices; norms, biases, sinks and position biases have none"},
      {"optimizer.max_grad_norm", RealField{&c.optimizer.max_grad_norm, 0, kNoLimit},
       "clips the global gradient norm; 0: no clipping"},

      {"checkpoint.every", IntegerField{&c.checkpoint.every, 0},
       "steps between saved run states, from which a run goes on; 0: only at its end and when it is stopped",
       Effect::kNone},
      {"checkpoint.keep_last", IntegerField{&c.checkpoint.keep_last, 1}, "newest states that are kept", Effect::kNone},
      {"checkpoint.keep_every", IntegerField{&c.checkpoint.keep_every, 0},
       "states of steps that this divides are kept, too; 0: none", Effect::kNone},
      {"checkpoint.keep_best", IntegerField{&c.checkpoint.keep_best, 0},
       "states with the lowest held-out loss that are kept, too", Effect::kNone},
      {"checkpoint.staging", &c.checkpoint.staging,
       "copy the state aside and write it while training goes on (takes that much memory); false: training waits for "
       "the disk",
       Effect::kNone},
      {"checkpoint.verify", &c.checkpoint.verify, "read every state back once it is written and compare",
       Effect::kNone},

      {"guard.on_nonfinite", ChoiceField{&c.guard.on_nonfinite, {"skip_step", "rollback", "stop"}},
       "what happens to a step whose loss or gradient is not finite, after it has been looked into (incident-<step>/): "
       "it leaves the weights as they are; or the run goes back to a state at least 8 steps earlier and leaves the "
       "step "
       "out when it comes again; or it ends with its state saved. The third skip in a row, or the 11th in 1000 steps, "
       "rolls back, and stops where there is no such state",
       Effect::kNone},
      {"guard.on_spike", ChoiceField{&c.guard.on_spike, {"report", "skip_step", "rollback", "stop"}},
       "what happens to a step with a spike of the loss or the gradient norm; report: it is looked into and the run "
       "goes "
       "on as if nothing had been",
       Effect::kNone},
      {"guard.loss_sigmas", RealField{&c.guard.loss_sigmas, 0, kNoLimit},
       "a loss this many standard deviations above the mean of the last 128 steps is a spike", Effect::kNone},
      {"guard.grad_norm_factor", RealField{&c.guard.grad_norm_factor, 0, kNoLimit},
       "a gradient norm this many times the median of the last 128 steps is a spike", Effect::kNone},

      {"run.exact", &c.run.exact,
       "sums over micro-batches and ranks are formed in one tree, so that layouts of 1, 2, 4, 8, ... ranks give equal "
       "bits; takes memory and time"},

      {"layout.dp", IntegerField{&c.layout.dp, 0}, "ranks that share a step's micro-batches; 0: what the others leave",
       Effect::kNone},
      {"layout.zero", IntegerField{&c.layout.zero, 0},
       "what ranks with equal weights keep once: 0 nothing, 1 masters and moments, 2 also gradients, 3 also weights",
       Effect::kNone},
      {"layout.overlap", &c.layout.overlap,
       "weights, gradients and rows for experts travel beside computation: takes a core more for every rank, and from "
       "zero 2 on the "
       "memory of a second layer",
       Effect::kNone},
      {"layout.ep", IntegerField{&c.layout.ep, 1}, "ranks over which experts are spread; divides dp * cp * tp",
       Effect::kNone},
      {"layout.expert_rows", IntegerField{&c.layout.expert_rows, 0},
       "rows (token, expert) that a rank's experts take at once, more of them in further rounds; 0: a quarter more "
       "than with even loads",
       Effect::kNone},
      {"layout.rebalance", IntegerField{&c.layout.rebalance, 0},
       "steps after which experts are dealt anew to the ranks by their loads, where ep is above 1; 0: never",
       Effect::kNone},
      {"layout.pp", IntegerField{&c.layout.pp, 1}, "pipeline stages, each with a run of layers or halves of layers",
       Effect::kNone},
      {"layout.schedule", ChoiceField{&c.layout.schedule, {"1f1b", "interleaved", "zero-bubble"}},
       "order of a step in the pipeline (docs/schedules.md); zero-bubble takes memory and needs train.recompute = "
       "\"none\"",
       Effect::kNone},
      {"layout.chunks", IntegerField{&c.layout.chunks, 1},
       "runs of neighbouring layers, or halves of them, that a stage has; more than 1 with schedule = \"interleaved\"",
       Effect::kNone},
      {"layout.cp", IntegerField{&c.layout.cp, 1}, "ranks that share a row of tokens", Effect::kNone},
      {"layout.tp", IntegerField{&c.layout.tp, 1}, "ranks that share heads and vocabulary", Effect::kNone},
      {"layout.auto", &c.layout.is_auto,
       "the fastest layout that fits into memory, by formulas (`temper plan`); keys of this section that are given "
       "stay",
       Effect::kNone},
      {"layout.memory", RealField{&c.layout.memory, 0, kNoLimit},
       "with auto: GiB of memory that a rank has; 0: what is free, shared by the ranks of a machine", Effect::kNone},
      {"layout.tflops", RealField{&c.layout.tflops, 1e-3, kNoLimit},
       "with auto: products of a rank, in 10^12 operations a second", Effect::kNone},
      {"layout.bandwidth", RealField{&c.layout.bandwidth, 1e-3, kNoLimit},
       "with auto: GB a second between a rank and its memory", Effect::kNone},
      {"layout.link", RealField{&c.layout.link, 1e-3, kNoLimit}, "with auto: GB a second that a rank sends to others",
       Effect::kNone},
      {"layout.deadline", RealField{&c.layout.deadline, 0, kNoLimit},
       "seconds that ranks wait for one another before the one that is missing is named and the run ends",
       Effect::kNone},

      {"output.dir", &c.output.dir, "directory of the run: states, metrics.jsonl, model/; a run that is there goes on",
       Effect::kNone},
      {"output.dtype", ChoiceField{&c.output.dtype, {"source", "fp32", "bf16", "official"}},
       "of the saved weights; source: as model.path stores them, FP8 and FP4 too, fp32 where there is none; official: "
       "experts FP4, projections FP8",
       Effect::kNone},
      {"output.save_every", IntegerField{&c.output.save_every, 0}, "steps between saved models; 0: only the last",
       Effect::kNone},
      {"output.log_every", IntegerField{&c.output.log_every, 1},
       "steps between lines where the output is not a terminal", Effect::kNone},
      {"output.eval_every", IntegerField{&c.output.eval_every, 0}, "steps between held-out losses; 0: only at the end",
       Effect::kNone},

      {"eval.max_examples", IntegerField{&c.eval.max_examples, 0}, "held-out examples used; 0: all", Effect::kNone},
      {"eval.samples", IntegerField{&c.eval.samples, 0},
       "questions of data.eval that the model answers at the end of the run, for `temper report`; 0: none",
       Effect::kNone},
      {"eval.max_new_tokens", IntegerField{&c.eval.max_new_tokens, 1}, "longest of these answers", Effect::kNone},
      {"eval.temperature", RealField{&c.eval.temperature, 0, kNoLimit}, "of these answers; 0: greedy", Effect::kNone},
      {"eval.top_p", RealField{&c.eval.top_p, 0, 1}, "of these answers", Effect::kNone},
  };
}

std::string type_words(const Field& field) {
  return std::visit(Overloaded{[](std::string*) -> std::string { return "a string"; },
                               [](bool*) -> std::string { return "true or false"; },
                               [](const IntegerField& f) { return fmt::format("a whole number >= {}", f.min); },
                               [](const RealField& f) {
                                 return f.max < kNoLimit ? fmt::format("a number from {} to {}", f.min, f.max)
                                                         : fmt::format("a number >= {}", f.min);
                               },
                               [](const ChoiceField& f) { return quoted_list(f.choices, " or "); },
                               [](std::vector<std::string>*) -> std::string { return "a string or a list of strings"; },
                               [](std::array<double, 2>*) -> std::string { return "two numbers in [0, 1)"; }},
                    field);
}

std::string current_value(const Field& field) {
  return std::visit(
      Overloaded{[](std::string* value) { return fmt::format("\"{}\"", *value); },
                 [](bool* value) { return fmt::format("{}", *value); },
                 [](const IntegerField& f) { return fmt::format("{}", *f.value); },
                 [](const RealField& f) { return fmt::format("{}", *f.value); },
                 [](const ChoiceField& f) { return fmt::format("\"{}\"", *f.value); },
                 [](std::vector<std::string>* value) {
                   return fmt::format("[{}]", quoted_list({value->begin(), value->end()}, ", "));
                 },
                 [](std::array<double, 2>* value) { return fmt::format("[{}, {}]", (*value)[0], (*value)[1]); }},
      field);
}

}  // namespace temper::train
