// What comes before the first step: everything that can be refused is refused here, and a run that was interrupted is
// taken up.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/state_ranks.h"
#include "checkpoint/weight_source.h"
#include "data/hash.h"
#include "data/reader.h"
#include "parallel/texts.h"
#include "train/answers.h"
#include "train/configuration.h"
#include "train/data_setup.h"
#include "train/run_options.h"
#include "train/same_start.h"
#include "train/trainer.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using checkpoint::OpenedState;

optim::AdamwOptions adamw_of(const RunConfig& config) {
  const auto& o = config.optimizer;
  return {o.betas[0], o.betas[1], o.eps, o.weight_decay};
}

nlohmann::json parsed_source(const model::Config& config) {
  return parse_json<nlohmann::json>(config.source, "config.json");
}

checkpoint::Retention retention_of(const RunConfig& config) {
  return {config.checkpoint.keep_last, config.checkpoint.keep_every, config.checkpoint.keep_best};
}

}  // namespace

Trainer::Trainer(RunConfig config, Start start, Files& files, int64_t at_most_state, const backend::Backend* backend,
                 comm::Comm* world)
    : config_(std::move(config)),
      files_(files),
      world_(world && world->size() > 1 ? world : nullptr),
      is_replay_(start == Start::kReplay),
      at_most_state_(at_most_state),
      dir_(config_.output.dir, is_first() ? start : Start::kReplay),  // the first rank makes and locks it
      log_(dir_.states(), retention_of(config_), files),
      adamw_(adamw_of(config_)),
      guard_(guard_options(config_)) {
  objective_ = make_objective(config_);
  model_config_ = read_model_config(config_);
  join_ranks();
  tokenizer_ = std::make_unique<data::Tokenizer>(data::Tokenizer::load(tokenizer_path(config_)));
  load_data();
  check_agreement();
  make_schedule();
  const std::optional<OpenedState> opened = newest_state();
  if (opened) {
    take_up(*opened);
    say(fmt::format("going on after step {} of {} ({})", state_.step, schedule_.total_steps, dir_.path().string()));
  }
  make_session(backend);
  fill_weights(opened);
  // The first touch of memory takes longer than a copy; better now than in a step.
  if (!is_replay_ && config_.checkpoint.staging) session_->state_tensors().stage(session_->ctx());
  state_.configuration = configuration_of(config_);
  state_.model_config = parsed_source(model_config_);
  state_.configuration_hash = configuration_hash(config_, state_.model_config);
  if (is_replay_) return;
  scale_.peak = session_->ctx().device.peak(session_->ctx().act);
  if (world_) {
    const View sum(&scale_.peak.flops_per_second, DType::kF64, {1});
    world_->all_reduce(nullptr, sum, comm::Reduce::kSum, {"peak"});
    scale_.peak.name = fmt::format("{} ranks' {:.2f} TFLOP/s, each {}", world_->size(),
                                   scale_.peak.flops_per_second * 1e-12, scale_.peak.name);
  }
  if (is_first()) {
    describe_run();
    logs_ = std::make_unique<RunLogs>(dir_.path(), state_.log_bytes, files);
  }
  keeper_ = std::make_unique<StateKeeper>(
      log_, session_->ctx(), session_->state_tensors(),
      [this] {
        if (logs_) logs_->sync();
      },
      config_.checkpoint.verify);
}

void Trainer::join_ranks() {
  const parallel::Layout layout = parallel::resolve(layout_of(config_), comm::group_size(world_), model_config_);
  if (!world_) return;
  world_->set_deadline(config_.layout.deadline);
  world_->set_place(0, "starting the run");
  world_->barrier(nullptr, {"run directory"});  // it is there from now on
  const std::string problem = parallel::first_problem(world_, dir_.why_not_shared());
  if (!problem.empty()) fail(ErrorCode::kIo, "{}", problem);
  ranks_ = parallel::join_mesh(*world_, layout);
  say(fmt::format("{} ranks: {}", world_->size(), layout.to_string()));
  if (config_.train.gradient_accumulation % layout.dp != 0)
    say(fmt::format("warning: train.gradient_accumulation = {} is no multiple of dp {}: some ranks wait",
                    config_.train.gradient_accumulation, layout.dp));
  const bool is_power = std::has_single_bit(static_cast<uint64_t>(layout.dp));
  if (config_.run.exact && (layout.cp > 1 || layout.tp > 1 || !is_power))
    say("warning: run.exact gives the bits of one rank only with cp 1, tp 1 and a dp that is a power of two");
}

// Of all ranks, one speaks.
void Trainer::say(const std::string& text) const {
  if (is_first()) fmt::print("{}\n", text);
}

std::optional<OpenedState> Trainer::newest_state() {
  std::vector<checkpoint::DamagedState> damaged;
  if (at_most_state_ == 0) return std::nullopt;
  std::optional<OpenedState> opened = checkpoint::open_newest(log_, at_most_state_, damaged, world_);
  std::string list;
  for (const auto& state : damaged) list += fmt::format("\n  step {}: {}", state.step, state.reason);
  if (!opened && !damaged.empty())
    fail(ErrorCode::kCorrupt,
         "{} holds no state that is whole, so the run cannot go on; give --fresh --force to begin it anew:{}",
         dir_.states().string(), list);
  if (!damaged.empty()) say(fmt::format("damaged states are passed over:{}", list));
  return opened;
}

void Trainer::take_up(const OpenedState& opened) {
  const std::string origin = fmt::format("{}: state of step {}", dir_.states().string(), opened.step());
  state_ = RunState::from_json(opened.facts(), origin);
  const std::vector<std::string> changed = changed_mathematics(state_.configuration, config_);
  if (!changed.empty())
    fail(ErrorCode::kInvalidArgument,
         "{} was made by another configuration, and to go on from it would be neither run. Change back, begin anew "
         "with another output.dir (model.path can be a model of this run), or give --fresh --force:\n  {}",
         origin, fmt::join(changed, "\n  "));
  if (state_.model_config != parsed_source(model_config_))
    fail(ErrorCode::kInvalidArgument, "{} belongs to another config.json than {}", origin,
         config_.model.path.empty() ? config_.model.config : config_.model.path);
  guard_.from_json(state_.guard);
  loader_->restore(state_.loader);
  sources_.restore(state_.tokens_by_source);
  adamw_.set_num_applied(state_.num_updates);
  saved_step_ = state_.step;
}

void Trainer::describe_run() {
  const nlohmann::ordered_json description = {
      {"format", "temper run"},
      {"configuration_hash", state_.configuration_hash},
      {"total_steps", schedule_.total_steps},
      {"planned_bytes", scale_.planned_bytes},
      {"machine", state_.machine},
      {"peak", {{"name", scale_.peak.name}, {"flops_per_second", scale_.peak.flops_per_second}}},
      {"configuration", state_.configuration},
      {"model_config", state_.model_config}};
  write_file_atomically(dir_.description(), description.dump(2) + "\n");
}

void Trainer::load_data() {
  const data::ReadOptions options = read_options(config_, model_config_.vocab_size);
  data::ReadReport report;
  const std::vector<fs::path> files = expand_files(config_.data.train);
  sources_ = SourceTokens(files);
  auto examples = data::read_examples(files, *tokenizer_, options, report);
  say(fmt::format("training data: {}", describe(report)));
  data::LoaderOptions loader;
  loader.rows.row_tokens = config_.train.tokens_per_micro_batch;
  loader.rows.num_epochs = config_.train.epochs;
  loader.rows.seed = static_cast<uint64_t>(config_.train.seed);
  loader.micro_batches_per_step = config_.train.gradient_accumulation;
  loader_ = std::make_unique<data::Loader>(std::move(examples), loader);
  if (config_.data.eval.empty()) return;
  data::ReadReport heldout_report;
  const std::vector<fs::path> heldout_files = expand_files(config_.data.eval);
  if (config_.eval.samples > 0) read_questions(heldout_files, config_.eval.samples);  // refused now, not at the end
  auto heldout = data::read_examples(heldout_files, *tokenizer_, options, heldout_report);
  say(fmt::format("held-out data: {}", describe(heldout_report)));
  const auto limit = static_cast<size_t>(config_.eval.max_examples);
  if (limit > 0 && heldout.size() > limit) heldout.resize(limit);
  heldout_ = pack_rows(heldout, config_.train.tokens_per_micro_batch);
}

// Every rank has read the files by itself. Ranks with different ones would train on, and no number would show it.
void Trainer::check_agreement() const {
  if (!world_) return;
  data::Fnv heldout;
  for (const layers::MicroBatch& row : heldout_)
    for (size_t t = 0; t < row.tokens.size(); ++t)
      heldout.add(static_cast<uint64_t>(row.tokens[t])), heldout.add(static_cast<uint64_t>(row.targets[t]));
  nlohmann::ordered_json facts = {{"hash of data.train", loader_->position().fingerprint},
                                  {"hash of data.eval", heldout.value()}};
  const nlohmann::json model = parsed_source(model_config_);
  for (const auto& [key, value] : model.items()) facts["config.json: " + key] = value;
  check_alike(*world_, facts);
}

void Trainer::make_schedule() {
  const auto& o = config_.optimizer;
  schedule_.total_steps = config_.train.steps > 0 ? config_.train.steps : loader_->count_steps();
  schedule_.kind = optim::parse_schedule(o.schedule);
  schedule_.decay = optim::parse_decay(o.decay);
  schedule_.max_lr = o.lr, schedule_.min_lr = o.min_lr;
  schedule_.warmup_offset = o.warmup_offset, schedule_.decay_steps = o.decay_steps;
  schedule_.warmup_steps = o.warmup_steps;
  if (o.warmup_steps < 0) {
    schedule_.warmup_steps = std::llround(o.warmup_ratio * static_cast<double>(schedule_.total_steps));
  }
  optim::validate(schedule_);
  scale_.total_steps = schedule_.total_steps;
}

bool Trainer::trains_mtp() const {
  if (config_.train.mtp_weight == 0 || config_.train.indexer == "warm-up") return false;
  if (model_config_.num_nextn_predict_layers != 1) return false;
  if (config_.model.path.empty()) return true;
  const checkpoint::MtpKind kind = checkpoint::WeightSource(config_.model.path).mtp_kind();
  if (kind == checkpoint::MtpKind::kOther)
    say(fmt::format("{}: its mtp.* tensors are not V4's multi-token-prediction block; they stay as they are",
                    config_.model.path));
  return kind == checkpoint::MtpKind::kV4;
}

void Trainer::make_session(const backend::Backend* backend) {
  model::ModelOptions options = model_options(config_, trains_mtp());
  if (ranks_) ranks_->place(model_config_, config_.train.gradient_accumulation, options);
  session_ = std::make_unique<Session>(backend ? *backend : backend_for(options.precision), model_config_, options,
                                       config_.checkpoint.staging ? StateMemory::kStaged : StateMemory::kInPlace,
                                       ranks_ ? &*ranks_ : nullptr);
  if (ranks_ && ranks_->ep && config_.layout.rebalance > 0) placement_.emplace(*session_, *ranks_);
  scale_.planned_bytes = session_->book().total_bytes();
  const backend::DeviceInfo device = session_->ctx().device.info();
  if (state_.step > 0 && state_.machine != device.name)
    say(fmt::format("the state was made on {}, this is {}: the last bits of sums may differ from here on",
                    state_.machine, device.name));
  state_.machine = device.name;
}

void Trainer::fill_weights(const std::optional<OpenedState>& opened) {
  model::Model& model = session_->model();
  if (opened) return session_->state_tensors().load(session_->ctx(), model, *opened);
  if (config_.model.path.empty() || !config_.model.allow_missing.empty())
    model.initialize(session_->ctx(), static_cast<uint64_t>(config_.model.seed));
  if (config_.model.path.empty()) return;
  const checkpoint::LoadReport report =
      checkpoint::load_weights(config_.model.path, session_->ctx(), model.parameters(), {config_.model.allow_missing});
  for (const std::string& name : report.missing)
    say(fmt::format("{} has no {}: it starts as in a random model", config_.model.path, name));
}

}  // namespace temper::train
