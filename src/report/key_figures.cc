#include "report/key_figures.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>

#include "report/figure.h"
#include "report/model_size.h"
#include "tensor/book.h"

namespace temper::report {
namespace {

double median(const std::vector<Point>& series) {
  std::vector<double> values;
  values.reserve(series.size());
  for (const Point& point : series) values.push_back(point.value);
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double sum(const std::vector<Point>& series) {
  double total = 0;
  for (const Point& point : series) total += point.value;
  return total;
}

// 1234567 as "1,234,567".
std::string grouped(double value) {
  std::string digits = fmt::format("{:.0f}", value);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

// 284332230231 as "284.3B".
std::string short_count(int64_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.4g}B", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  return grouped(value);
}

// Times from a file may be any number; what no calendar holds is not shown.
std::string utc(double unix_seconds, const char* format) {
  if (!(unix_seconds > 0 && unix_seconds < 4e9)) return "?";
  return fmt::format(fmt::runtime(format), fmt::gmtime(static_cast<std::time_t>(unix_seconds)));
}

void add_loss(std::vector<Row>& rows, const std::string& name, const std::vector<Point>& series) {
  if (series.empty()) return;
  const auto lower = [](const Point& a, const Point& b) { return a.value < b.value; };
  const Point best = *std::min_element(series.begin(), series.end(), lower);
  rows.push_back({fmt::format("{}; lowest {:.4f}, step {}", name, best.value, best.step),
                  fmt::format("{:.4g} \u2192 {:.4g}", series.front().value, series.back().value)});
}

// A text at json[outer][inner]; empty where there is none.
std::string text_at(const nlohmann::ordered_json& json, const char* outer, const char* inner) {
  if (!json.contains(outer) || !json[outer].is_object() || !json[outer].contains(inner)) return "";
  const auto& value = json[outer][inner];
  return value.is_string() ? printable(value.get<std::string>()) : "";
}

void add_memory(std::vector<Row>& rows, const RunLog& log) {
  const std::vector<Point>&used = log.at("memory_bytes"), &plan = log.at("memory_plan_bytes");
  if (used.empty()) return;
  std::string name = "memory, high mark";
  const auto bytes = [](const Point& point) { return format_bytes(std::llround(std::clamp(point.value, 0.0, 1e18))); };
  if (!plan.empty()) name += "; plan " + bytes(plan.back());
  rows.push_back({name, bytes(used.back())});
}

}  // namespace

std::string run_name(const RunFiles& run) {
  const std::filesystem::path path = run.path.has_filename() ? run.path : run.path.parent_path();
  return printable(path.filename().string());
}

std::string progress_text(const RunFiles& run) {
  int64_t last_step = 0;
  double first = INFINITY, last = 0;
  for (const auto& [field, points] : run.log.series) {
    for (const Point& point : points) {
      last_step = std::max(last_step, point.step);
      if (point.wall_time > 0) first = std::min(first, point.wall_time), last = std::max(last, point.wall_time);
    }
  }
  std::string out = fmt::format("step {}", last_step);
  if (run.description.contains("total_steps") && run.description["total_steps"].is_number_integer())
    out += fmt::format(" of {}", run.description["total_steps"].get<int64_t>());
  if (const double seconds = sum(run.log.at("step_ms")) / 1e3; seconds > 0)
    out += fmt::format(", {} in steps", duration_text(seconds));
  if (last > 0) out += fmt::format(", {} to {} UTC", utc(first, "{:%Y-%m-%d %H:%M}"), utc(last, "{:%Y-%m-%d %H:%M}"));
  return out;
}

std::string model_text(const RunFiles& run) {
  if (!run.model) return "";
  const model::Config& config = *run.model;
  const ModelSize size = measure(config);
  return fmt::format(
      "{} parameters, {} active for a token: {} layers, hidden size {}, {} experts of which {} are chosen",
      short_count(size.total), short_count(size.active), config.num_hidden_layers, config.hidden_size,
      config.n_routed_experts, config.num_experts_per_tok);
}

std::vector<Row> key_figures(const RunFiles& run) {
  const RunLog& log = run.log;
  std::vector<Row> rows;
  add_loss(rows, "loss", log.at("loss"));
  add_loss(rows, "held-out loss", log.at("eval_loss"));
  if (const auto& accuracy = log.at("eval_mean_token_accuracy"); !accuracy.empty())
    rows.push_back(
        {"held-out tokens that were the most likely one", fmt::format("{:.1f} %", 100 * accuracy.back().value)});
  if (const auto& tokens = log.at("num_tokens"); !tokens.empty())
    rows.push_back({"tokens", grouped(tokens.back().value)});
  if (const auto& speed = log.at("tokens_per_second"); !speed.empty())
    rows.push_back({"tokens per second, median", grouped(median(speed))});
  if (is_used(log, "mfu")) {
    const std::string peak = text_at(run.description, "peak", "name");
    rows.push_back(
        {"MFU, median" + (peak.empty() ? "" : " of " + peak), fmt::format("{:.1f} %", 100 * median(log.at("mfu")))});
  }
  add_memory(rows, log);
  for (const auto& [field, name] :
       {std::pair{"skipped_steps", "skipped steps"}, {"dead_experts", "dead experts, last step"}}) {
    if (const auto& series = log.at(field); !series.empty()) rows.push_back({name, grouped(series.back().value)});
  }
  return rows;
}

std::vector<TimeShare> time_shares(const RunLog& log) {
  constexpr std::array kParts = {std::pair{"data_ms", "waiting for data"}, std::pair{"forward_ms", "forward"},
                                 std::pair{"backward_ms", "backward"},     std::pair{"optimizer_ms", "optimizer"},
                                 std::pair{"other_ms", "other"},           std::pair{"checkpoint_ms", "run states"}};
  std::vector<TimeShare> shares;
  double total = 0;
  for (const auto& [field, name] : kParts) {
    const double seconds = sum(log.at(field)) / 1e3;
    if (!(seconds > 0)) continue;
    shares.push_back({name, seconds, 0});
    total += seconds;
  }
  for (TimeShare& share : shares) share.share = share.seconds / total;
  return shares;
}

bool is_used(const RunLog& log, const std::string& field) {
  const std::vector<Point>& series = log.at(field);
  return std::any_of(series.begin(), series.end(), [](const Point& point) { return point.value != 0; });
}

std::string duration_text(double seconds) {
  if (seconds < 60) return fmt::format("{:.1f} s", seconds);
  const auto whole = static_cast<int64_t>(std::min(seconds, 1e15));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

}  // namespace temper::report
