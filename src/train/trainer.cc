#include "train/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/weight_source.h"
#include "data/reader.h"
#include "train/data_setup.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

layers::Precision precision_of(const RunConfig& config) {
  return config.train.precision == "fp32" ? layers::Precision::kFp32 : layers::Precision::kBf16;
}

model::Recompute recompute_of(const RunConfig& config) {
  if (config.train.recompute == "block") return model::Recompute::kBlock;
  return config.train.recompute == "full" ? model::Recompute::kFull : model::Recompute::kNone;
}

model::IndexerUse indexer_of(const RunConfig& config) {
  if (config.train.indexer == "warm-up") return model::IndexerUse::kWarmUp;
  return config.train.indexer == "train" ? model::IndexerUse::kTrain : model::IndexerUse::kFrozen;
}

checkpoint::SaveDType save_dtype_of(const RunConfig& config) {
  if (config.output.dtype == "fp32") return checkpoint::SaveDType::kF32;
  if (config.output.dtype == "official") return checkpoint::SaveDType::kOfficial;
  return config.output.dtype == "bf16" ? checkpoint::SaveDType::kBF16 : checkpoint::SaveDType::kSource;
}

// model.config may be the file or the directory that holds it.
model::Config read_model_config(const RunConfig& config) {
  if (!config.model.path.empty()) return checkpoint::load_config(config.model.path);
  const fs::path path(config.model.config);
  if (fs::is_directory(path)) return checkpoint::load_config(path);
  return model::parse_config(read_file(path), path.string());
}

void refuse_if_not_finite(const StepResult& result) {
  if (result.finite()) return;
  const std::string& name = result.norms.first_nonfinite;
  fail(ErrorCode::kInvalidArgument,
       "the {} is not finite; the weights were not updated. Lower optimizer.lr or lengthen the warm-up, and check the "
       "data",
       name.empty() ? fmt::format("loss ({})", result.loss) : "gradient of " + name);
}

}  // namespace

Trainer::Trainer(RunConfig config) : config_(std::move(config)) {
  checkpoint::check_save_dir(config_.output.dir, config_.output.overwrite);
  objective_ = make_objective(config_);
  model_config_ = read_model_config(config_);
  tokenizer_ = std::make_unique<data::Tokenizer>(data::Tokenizer::load(tokenizer_path(config_)));
  load_data();
  make_schedule();
  make_session();
  metrics_ = std::make_unique<MetricsFile>(fs::path(config_.output.dir) / "metrics.jsonl");
}

void Trainer::load_data() {
  const data::ReadOptions options = read_options(config_, model_config_.vocab_size);
  data::ReadReport report;
  const auto files = expand_files(config_.data.train);
  sources_ = SourceTokens(files);
  auto examples = data::read_examples(files, *tokenizer_, options, report);
  fmt::print("training data: {}\n", describe(report));
  data::LoaderOptions loader;
  loader.rows.row_tokens = config_.train.tokens_per_micro_batch;
  loader.rows.num_epochs = config_.train.epochs;
  loader.rows.seed = static_cast<uint64_t>(config_.train.seed);
  loader.micro_batches_per_step = config_.train.gradient_accumulation;
  loader_ = std::make_unique<data::Loader>(std::move(examples), loader);
  if (config_.data.eval.empty()) return;
  data::ReadReport heldout_report;
  auto heldout = data::read_examples(expand_files(config_.data.eval), *tokenizer_, options, heldout_report);
  fmt::print("held-out data: {}\n", describe(heldout_report));
  const auto limit = static_cast<size_t>(config_.eval.max_examples);
  if (limit > 0 && heldout.size() > limit) heldout.resize(limit);
  heldout_ = pack_rows(heldout, config_.train.tokens_per_micro_batch);
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
    fmt::print("{}: its mtp.* tensors are not V4's multi-token-prediction block; they stay as they are\n",
               config_.model.path);
  return kind == checkpoint::MtpKind::kV4;
}

void Trainer::make_session() {
  model::ModelOptions options;
  options.precision = precision_of(config_);
  options.max_tokens = config_.train.tokens_per_micro_batch;
  options.max_document = config_.data.max_document;
  options.recompute = recompute_of(config_);
  options.indexer = indexer_of(config_);
  options.frozen = config_.train.freeze;
  options.mtp = trains_mtp();
  session_ = std::make_unique<Session>(backend_for(options.precision), model_config_, options);
  scale_.planned_bytes = session_->book().total_bytes();
  model::Model& model = session_->model();
  if (config_.model.path.empty() || !config_.model.allow_missing.empty())
    model.initialize(session_->ctx(), static_cast<uint64_t>(config_.model.seed));
  if (config_.model.path.empty()) return;
  const checkpoint::LoadReport report =
      checkpoint::load_weights(config_.model.path, session_->ctx(), model.parameters(), {config_.model.allow_missing});
  for (const std::string& name : report.missing)
    fmt::print("{} has no {}: it starts as in a random model\n", config_.model.path, name);
}

TrainSummary Trainer::train() {
  const StopRequest stop;
  scale_.peak = session_->ctx().device.peak(session_->ctx().act);
  reset_peak_resident();  // the measurement's own memory is not the run's
  progress_ = std::make_unique<Progress>(stdout, scale_, config_.output.log_every);
  const auto& o = config_.optimizer;
  optim::Adamw adamw({o.betas[0], o.betas[1], o.eps, o.weight_decay});
  Step step({session_->ctx(),
             session_->model(),
             *objective_,
             session_->norm_meter(),
             adamw,
             o.max_grad_norm,
             {session_->model().options().mtp ? config_.train.mtp_weight : 0, config_.train.balance_weight,
              config_.train.indexer_weight, config_.train.bias_update_speed},
             &session_->update_meter()});
  TrainSummary summary;
  if (!heldout_.empty()) summary.heldout_before = held_out(0);
  double flops = 0;
  data::LoaderStep data;
  for (int64_t i = 0; i < schedule_.total_steps && !summary.interrupted; ++i) {
    const double start = now_seconds();
    if (!loader_->next(data)) break;
    StepReport report;
    report.data_seconds = now_seconds() - start;
    with_place(
        i + 1, [&] { return step.position(); },
        [&] {
          report.result = step.compute(data.micro_batches, schedule_.at(i));
          refuse_if_not_finite(report.result);
          report.result = step.update();
        });
    sources_.add(data);
    report.step = i + 1;
    report.epoch = data.epoch;
    report.step_seconds = now_seconds() - start;
    flops += report.result.model_flops;
    report_step(report, summary);
    summary.interrupted =
        stop.requested() || (config_.train.max_seconds > 0 && summary.train_seconds >= config_.train.max_seconds);
    if (i + 1 < schedule_.total_steps && !summary.interrupted) between_steps(i + 1);
  }
  summary.interrupted = summary.interrupted && summary.num_steps < schedule_.total_steps;
  if (!heldout_.empty()) summary.heldout_after = held_out(summary.num_steps);
  summary.model_dir = fs::path(config_.output.dir) / "model";
  save(summary.model_dir);
  progress_->finish();
  summary.tokens_per_second = static_cast<double>(summary.num_tokens) / summary.train_seconds;
  summary.mfu = mfu_of(flops, summary.train_seconds);
  summary.peak_flops = scale_.peak.flops_per_second, summary.peak_name = scale_.peak.name;
  summary.peak_memory_bytes = peak_resident_bytes(), summary.planned_bytes = scale_.planned_bytes;
  return summary;
}

double Trainer::mfu_of(double model_flops, double seconds) const {
  const double peak = scale_.peak.flops_per_second;
  return peak > 0 ? model_flops / seconds / peak : 0;
}

void Trainer::report_step(StepReport& report, TrainSummary& summary) {
  const StepResult& result = report.result;
  summary.num_steps = report.step;
  summary.num_tokens += result.num_tokens;
  summary.train_seconds += report.step_seconds;
  if (report.step == 1) summary.first_loss = result.loss;
  summary.last_loss = result.loss;
  report.total_tokens = summary.num_tokens;
  report.tokens_per_second = static_cast<double>(result.num_tokens) / report.step_seconds;
  report.mfu = mfu_of(result.model_flops, report.step_seconds);
  report.memory_bytes = peak_resident_bytes(), report.planned_bytes = scale_.planned_bytes;
  report.sources = sources_.counts();
  metrics_->write(report);
  double seconds_left = summary.train_seconds / static_cast<double>(report.step) *
                        static_cast<double>(schedule_.total_steps - report.step);
  if (config_.train.max_seconds > 0) {
    seconds_left = std::clamp(config_.train.max_seconds - summary.train_seconds, 0.0, seconds_left);
  }
  progress_->update(report, seconds_left);
  progress_->note(metrics_->take_news());
}

void Trainer::between_steps(int64_t step) {
  const auto& output = config_.output;
  if (output.eval_every > 0 && step % output.eval_every == 0) held_out(step);
  if (output.save_every > 0 && step % output.save_every == 0) save(fs::path(output.dir) / fmt::format("step-{}", step));
}

HeldoutResult Trainer::held_out(int64_t step) {
  const HeldoutResult result = evaluate(session_->ctx(), session_->model(), heldout_);
  metrics_->write(EvalReport{step, result.loss, result.accuracy, result.num_targets});
  progress_->note(fmt::format("held-out loss after {} steps: {:.4f}, token accuracy {:.1f}% ({} tokens)", step,
                              result.loss, 100 * result.accuracy, result.num_targets));
  return result;
}

void Trainer::save(const fs::path& dir) {
  checkpoint::SaveOptions options;
  options.dtype = save_dtype_of(config_);
  options.source_dir = config_.model.path;
  const fs::path tokenizer = tokenizer_path(config_);
  options.tokenizer_dir = fs::is_directory(tokenizer) ? tokenizer : tokenizer.parent_path();
  options.overwrite = config_.output.overwrite;
  checkpoint::save_weights(dir, model_config_, session_->ctx(), session_->model().parameters(), options);
  progress_->note(fmt::format("saved {}", dir.string()));
}

}  // namespace temper::train
