#include "train/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "train/expert_metrics.h"

namespace temper::train {
namespace {

using Line = nlohmann::ordered_json;

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string of_group(std::string_view name, int group) {
  return fmt::format("{}/{}", name, optim::group_name(static_cast<optim::ParameterGroup>(group)));
}

void add_gradients_and_update(Line& line, const StepResult& r) {
  line["grad_norm"] = r.norms.global;
  for (int g = 0; g < optim::kNumParameterGroups; ++g) line[of_group("grad_norm", g)] = r.norms.group[g];
  if (!r.update) return;
  line["params_norm"] = r.update->global.weight;
  line["update_rms"] = r.update->global.update_rms();
  line["update_ratio"] = r.update->global.ratio();
  for (int g = 0; g < optim::kNumParameterGroups; ++g) {
    line[of_group("params_norm", g)] = r.update->group[g].weight;
    line[of_group("update_ratio", g)] = r.update->group[g].ratio();
  }
}

void add_experts(Line& line, const ExpertMetrics& experts) {
  line["expert_overload"] = experts.overload;
  line["expert_load_cv"] = experts.variation;
  line["dead_experts"] = experts.num_dead;
  line["router_entropy"] = experts.entropy;
  line["router_bias_range"] = experts.bias_range;
  for (const LayerBalance& layer : experts.layers) {
    line[fmt::format("moe/overload_layer_{}", layer.layer)] = layer.overload;
    line[fmt::format("moe/dead_experts_layer_{}", layer.layer)] = layer.num_dead;
    line[fmt::format("moe/entropy_layer_{}", layer.layer)] = layer.entropy;
  }
  line["swiglu_clamp/gate_high"] = experts.num_gate_high;
  line["swiglu_clamp/linear_high"] = experts.num_linear_high;
  line["swiglu_clamp/linear_low"] = experts.num_linear_low;
  line["swiglu_clamp/share"] = experts.clamped_share;
}

void add_machine(Line& line, const StepReport& report) {
  const StepResult& r = report.result;
  const double named = report.data_seconds + r.forward_seconds + r.backward_seconds + r.optimizer_seconds;
  line["tokens_per_second"] = report.tokens_per_second;
  line["mfu"] = report.mfu;
  line["step_ms"] = 1e3 * report.step_seconds;
  line["data_ms"] = 1e3 * report.data_seconds;
  line["forward_ms"] = 1e3 * r.forward_seconds;
  line["backward_ms"] = 1e3 * r.backward_seconds;
  line["optimizer_ms"] = 1e3 * r.optimizer_seconds;
  line["other_ms"] = 1e3 * std::max(0.0, report.step_seconds - named);
  line["checkpoint_ms"] = 1e3 * report.checkpoint_seconds;
  for (const auto& [axis, seconds] : report.wait_seconds) line[fmt::format("wait_{}_ms", axis)] = 1e3 * seconds;
  line["memory_bytes"] = report.memory_bytes;
  line["memory_plan_bytes"] = report.planned_bytes;
  line["wall_time"] = unix_seconds();
}

// Bytes up to the end of the last line that has one.
int64_t whole_lines(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  const size_t end = text.rfind('\n');
  return end == std::string::npos ? 0 : static_cast<int64_t>(end) + 1;
}

}  // namespace

nlohmann::ordered_json metrics_line(const StepReport& report) {
  const StepResult& r = report.result;
  Line line = {{"step", report.step},
               {"loss", r.loss},
               {"perplexity", std::exp(r.loss)},
               {"mtp_loss", r.mtp_loss},
               {"balance_loss", r.balance_loss},
               {"indexer_loss", r.indexer_loss},
               {"mean_token_accuracy", r.mean_token_accuracy},
               {"learning_rate", r.learning_rate},
               {"num_tokens", report.total_tokens},
               {"num_label_tokens", r.num_targets},
               {"epoch", report.epoch},
               {"skipped_steps", report.num_skipped},
               {"nonfinite_steps", report.num_nonfinite},
               {"incidents", report.num_incidents}};
  // After a loss that is not finite neither is computed.
  if (std::isfinite(r.loss)) {
    add_gradients_and_update(line, r);
    add_experts(line, expert_metrics(r.moe_L));
  }
  if (!report.wait_seconds.empty()) line["imbalance"] = r.imbalance;
  if (report.expert_imbalance) line["expert_imbalance"] = *report.expert_imbalance;
  for (const auto& [source, count] : report.sources) {
    line["tokens_by_source/" + source] = count.tokens;
    line["trained_tokens_by_source/" + source] = count.trained_tokens;
  }
  if (!report.chain.empty()) line["chain"] = report.chain;
  add_machine(line, report);
  return line;
}

nlohmann::ordered_json metrics_line(const EvalReport& report) {
  return {{"step", report.step},
          {"eval_loss", report.loss},
          {"eval_perplexity", std::exp(report.loss)},
          {"eval_mean_token_accuracy", report.accuracy},
          {"eval_num_tokens", report.num_targets},
          {"wall_time", unix_seconds()}};
}

bool is_machine_field(std::string_view name) {
  if (name.find('/') != std::string_view::npos) return false;
  constexpr std::string_view kNames[] = {"tokens_per_second", "mfu",       "memory_bytes",
                                         "memory_plan_bytes", "wall_time", "expert_imbalance"};
  return name.ends_with("_ms") || std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t keep_bytes, Files& files)
    : file_(std::make_unique<AppendFile>(path, keep_bytes, files)) {
  const int64_t missing = file_->missing_bytes();
  if (missing == 0) return;
  news_ = fmt::format("{}: its last {} are gone; lines of some steps before the resumed one are missing", path.string(),
                      missing == 1 ? "byte" : fmt::format("{} bytes", missing));
  file_.reset();
  file_ = std::make_unique<AppendFile>(path, whole_lines(path), files);
}

std::string MetricsFile::take_news() {
  if (!news_.empty()) return std::exchange(news_, {});
  return file_->take_news();
}

int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

void reset_peak_resident() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace temper::train
