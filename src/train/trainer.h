// A training run: from RUN.toml to a model directory, through any number of interruptions.
//
//   Trainer trainer(load_run_config("RUN.toml", overrides));   // refuses whatever can be refused before the first step
//   TrainSummary summary = trainer.train();                    // output.dir: state/, metrics.jsonl, model/, step-<n>/
//
// Started again in the same output.dir, the run goes on from its newest whole state (state_keeper.h, run_state.h) and
// is equal, bit for bit, to one that was never interrupted.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/state_log.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "objective/objective.h"
#include "optim/adamw.h"
#include "optim/schedule.h"
#include "train/evaluate.h"
#include "train/progress.h"
#include "train/run_config.h"
#include "train/run_dir.h"
#include "train/run_logs.h"
#include "train/run_state.h"
#include "train/session.h"
#include "train/state_keeper.h"
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
  uint64_t chain = 0;                                          // see extend_chain
  int64_t num_states = 0;                                      // saved by this process
  double mean_pause_seconds = 0;                               // of training, for each of them
  std::filesystem::path model_dir;                             // empty: the run was stopped and is to go on
  std::string stopped_by;    // the signal or the batch system's clock; empty: nobody stopped it
  bool interrupted = false;  // ended before its last step: stopped, or by train.max_seconds
  bool was_done = false;     // there was nothing left to do
};

class Trainer {
 public:
  // Reads model, tokenizer and data, plans and takes the memory, loads or draws the weights or takes them from the
  // newest whole state, creates output.dir. Prints what it found; damaged states are named and passed over. Throws for
  // everything that bad input or a small machine can cause, and for a state that another configuration or other data
  // made, with the differences.
  // files: the disk of the states and the logs.
  explicit Trainer(RunConfig config, Start start = Start::kResume, Files& files = system_files());

  // Runs all steps that are left and saves the model, or saves a state and returns when a signal asks for it. Throws
  // Error with the step and the place in it.
  TrainSummary train();

  const RunConfig& config() const { return config_; }
  Session& session() { return *session_; }
  const data::Tokenizer& tokenizer() const { return *tokenizer_; }
  int64_t total_steps() const { return schedule_.total_steps; }

 private:
  // trainer_setup.cc
  void load_data();
  void make_schedule();
  void make_session();
  void fill_weights(const std::optional<checkpoint::OpenedState>& opened);
  // Whether the multi-token-prediction block is there and is to be trained.
  bool trains_mtp() const;
  std::optional<checkpoint::OpenedState> newest_state();
  void take_up(const checkpoint::OpenedState& opened);
  void describe_run();

  // trainer.cc
  bool out_of_time() const;
  bool stop_asked(const StopRequest& stop);
  void run_step(Step& step, const data::LoaderStep& data, StepReport& report);
  void report_step(StepReport& report);
  void between_steps();
  void schedule_next_save();
  void save_state();
  void save_state_and_wait();
  void tell_of_saving();
  void finish();
  TrainSummary summarise();
  double mfu_of(double model_flops, double seconds) const;
  HeldoutResult held_out();
  void save_model(const std::filesystem::path& dir);

  RunConfig config_;
  RunDir dir_;
  checkpoint::StateLog log_;
  model::Config model_config_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  std::unique_ptr<data::Loader> loader_;
  std::vector<layers::MicroBatch> heldout_;
  std::unique_ptr<objective::Objective> objective_;
  optim::Schedule schedule_;
  optim::Adamw adamw_;
  RunScale scale_;
  std::unique_ptr<Session> session_;
  SourceTokens sources_;
  std::unique_ptr<RunLogs> logs_;
  std::unique_ptr<Progress> progress_;
  RunState state_;                      // after the last step
  std::optional<double> heldout_loss_;  // of the model as it is
  int64_t next_save_ = 0, saved_step_ = 0, num_states_ = 0;
  double pause_seconds_ = 0;
  std::string stopped_by_;
  std::unique_ptr<StateKeeper> keeper_;  // last: it writes what the others hold
};

}  // namespace temper::train
