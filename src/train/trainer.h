// A training run: from RUN.toml to a model directory, through any number of interruptions.
//
//   Trainer trainer(load_run_config("RUN.toml", overrides));   // refuses whatever can be refused before the first step
//   TrainSummary summary = trainer.train();                    // output.dir: state/, metrics.jsonl, model/, step-<n>/
//
// Started again in the same output.dir, the run goes on from its newest whole state (state_keeper.h, run_state.h) and
// is equal, bit for bit, to one that was never interrupted.
#pragma once

#include <filesystem>
#include <limits>
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
#include "train/expert_placement.h"
#include "train/guard.h"
#include "train/incident_bundle.h"
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
  std::string stopped_by;              // the signal, the batch system's clock or the guard; empty: nobody stopped it
  std::filesystem::path incident_dir;  // where the guard stopped the run: the bundle about the step
  bool interrupted = false;            // ended before its last step: stopped, or by train.max_seconds
  bool stopped_by_guard = false;       // and would be again
  bool was_done = false;               // there was nothing left to do
};

// Whether a bundle's step, computed again, shows what the bundle says.
struct ReplayResult {
  bool reproduced = false;
  std::string difference;  // where it was not
  std::string finding;     // what was found; empty: the step could not be repeated, or was as usual
};

class Trainer {
 public:
  // Reads model, tokenizer and data, plans and takes the memory, loads or draws the weights or takes them from the
  // newest whole state, creates output.dir. Prints what it found; damaged states are named and passed over. Throws for
  // everything that bad input or a small machine can cause, and for a state that another configuration or other data
  // made, with the differences.
  // files: the disk of the states and the logs. at_most_state: later states are passed over; 0: all are. backend: null:
  // that of the precision (backend_for).
  // world: the ranks that make the run together, each with a Trainer of its own; null: this one alone. The first of
  // them speaks and writes for all.
  explicit Trainer(RunConfig config, Start start = Start::kResume, Files& files = system_files(),
                   int64_t at_most_state = std::numeric_limits<int64_t>::max(),
                   const backend::Backend* backend = nullptr, comm::Comm* world = nullptr);

  // Runs all steps that are left and saves the model, or saves a state and returns when a signal asks for it. Throws
  // Error with the step and the place in it.
  TrainSummary train();

  // Runs the steps up to that of the bundle without writing anything, checks that its data is the recorded one, and
  // looks into it again. For a Trainer made with Start::kReplay.
  ReplayResult replay(const Bundle& bundle);

  int64_t steps_done() const { return state_.step; }
  const RunConfig& config() const { return config_; }
  Session& session() { return *session_; }
  const data::Tokenizer& tokenizer() const { return *tokenizer_; }
  int64_t total_steps() const { return schedule_.total_steps; }

 private:
  // trainer_setup.cc
  bool is_first() const { return comm::group_rank(world_) == 0; }
  void say(const std::string& text) const;
  void join_ranks();
  void load_data();
  void check_agreement() const;
  void make_schedule();
  void make_session(const backend::Backend* backend);
  void fill_weights(const std::optional<checkpoint::OpenedState>& opened);
  // Whether the multi-token-prediction block is there and is to be trained.
  bool trains_mtp() const;
  std::optional<checkpoint::OpenedState> newest_state();
  void take_up(const checkpoint::OpenedState& opened);
  void describe_run();

  // trainer.cc
  bool out_of_time() const;
  void ask_to_stop(const StopRequest& stop);
  bool is_to_end(const StopRequest& stop);
  bool run_step(Step& step, data::LoaderStep& data, StepReport& report);
  void report_step(StepReport& report);
  void between_steps();
  void rebalance_experts();
  void schedule_next_save();
  void save_state();
  void save_state_and_wait();
  void tell_of_saving();
  void finish();
  TrainSummary summarise();
  double mfu_of(double model_flops, double seconds) const;
  HeldoutResult held_out();
  void save_model(const std::filesystem::path& dir);

  // trainer_guard.cc
  StepParts step_parts();
  // Computes a step, and looks into it where it is not as usual. With kGoOn its gradients are ready for the update.
  GuardAction compute_step(Step& step, const data::LoaderStep& data, StepResult& result);
  Incident look_into(const data::LoaderStep& data, const StepResult& result, const Judgement& judgement);
  void write_incident(const Incident& incident, const data::LoaderStep& data, std::string_view action);
  int64_t rollback_target(int64_t step);
  void roll_back(int64_t step);

  RunConfig config_;
  Files& files_;
  comm::Comm* const world_;
  const bool is_replay_;
  const int64_t at_most_state_;
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
  std::optional<parallel::Ranks> ranks_;  // of many
  std::map<std::string, double> waited_;  // by axis, until the last report
  std::unique_ptr<Session> session_;
  std::optional<ExpertPlacement> placement_;  // of many ranks that share experts, with layout.rebalance
  SourceTokens sources_;
  std::unique_ptr<RunLogs> logs_;  // of the first rank
  std::unique_ptr<Progress> progress_;
  RunState state_;  // after the last step
  Guard guard_;
  data::LoaderStep usual_;  // data of the last step that was as usual
  bool step_was_usual_ = true;
  std::filesystem::path incident_dir_;  // the last bundle
  std::optional<double> heldout_loss_;  // of the model as it is
  int64_t next_save_ = 0, saved_step_ = 0, num_states_ = 0;
  double pause_seconds_ = 0;
  std::string stopped_by_;
  std::unique_ptr<StateKeeper> keeper_;  // last: it writes what the others hold
};

}  // namespace temper::train
