// A training run: from RUN.toml to a model directory.
//
//   Trainer trainer(load_run_config("RUN.toml", overrides));   // refuses whatever can be refused before the first step
//   TrainSummary summary = trainer.train();                    // output.dir: metrics.jsonl, model/, step-<n>/
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/tokenizer.h"
#include "objective/objective.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "train/evaluate.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/run_config.h"
#include "train/session.h"
#include "train/supervisor.h"

namespace temper::train {

struct TrainSummary {
  int64_t num_steps = 0, num_tokens = 0;
  double train_seconds = 0;        // steps with their data; without held-out losses and saving
  double tokens_per_second = 0;    // over train_seconds
  double mfu = 0, peak_flops = 0;  // 0 where the peak is unknown
  std::string peak_name;           // as backend::Peak's
  int64_t peak_memory_bytes = 0, planned_bytes = 0;
  double first_loss = 0, last_loss = 0;
  std::optional<HeldoutResult> heldout_before, heldout_after;  // where data.eval is given
  std::filesystem::path model_dir;
  bool interrupted = false;  // ended before its last step, by a signal or train.max_seconds
};

class Trainer {
 public:
  // Reads model, tokenizer and data, plans and takes the memory, loads or draws the weights, creates output.dir. Prints
  // what it found. Throws for everything that bad input or a small machine can cause; a directory that holds
  // something is left untouched unless output.overwrite.
  explicit Trainer(RunConfig config);

  // Runs all steps and saves the model. Throws Error with the step and the place in it.
  TrainSummary train();

  const RunConfig& config() const { return config_; }
  Session& session() { return *session_; }
  const data::Tokenizer& tokenizer() const { return *tokenizer_; }
  int64_t total_steps() const { return schedule_.total_steps; }

 private:
  void load_data();
  void make_schedule();
  void make_session();
  // Whether the multi-token-prediction block is there and is to be trained.
  bool trains_mtp() const;
  void report_step(StepReport& report, TrainSummary& summary);
  double mfu_of(double model_flops, double seconds) const;
  void between_steps(int64_t step);
  HeldoutResult held_out(int64_t step);
  void save(const std::filesystem::path& dir);

  RunConfig config_;
  model::Config model_config_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  std::unique_ptr<data::Loader> loader_;
  std::vector<layers::MicroBatch> heldout_;
  std::unique_ptr<objective::Objective> objective_;
  optim::Schedule schedule_;
  RunScale scale_;
  std::unique_ptr<Session> session_;
  SourceTokens sources_;
  std::unique_ptr<MetricsFile> metrics_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace temper::train
