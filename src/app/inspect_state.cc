#include "app/inspect_state.h"

#include <fmt/format.h>

#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/convert.h"
#include "checkpoint/state_log.h"
#include "tensor/book.h"

namespace temper::app {
namespace {

using nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr size_t kMaxValueLength = 160;

// A line for each value: "loader.epoch = 2"; long ones cut. Escaped as JSON, so that no file sends codes to a terminal.
void print_facts(const ordered_json& value, const std::string& name) {
  if (value.is_object() && !value.empty()) {
    for (const auto& [key, below] : value.items()) {
      const std::string quoted = ordered_json(key).dump(-1, ' ', true);
      print_facts(below, (name.empty() ? "" : name + ".") + quoted.substr(1, quoted.size() - 2));
    }
    return;
  }
  std::string text = value.dump(-1, ' ', true);
  if (text.size() > kMaxValueLength) text = text.substr(0, kMaxValueLength - 3) + "...";
  fmt::print("  {} = {}\n", name, text);
}

void print_verified(const checkpoint::OpenedState& state, bool is_pinned) {
  fmt::print("step {:>8}  {:>10}  hash {}  verified", state.step(), format_bytes(state.num_bytes()), state.hash());
  if (state.score()) fmt::print(", score {:.6g}", *state.score());
  fmt::print("{}\n", is_pinned ? ", pinned" : "");
}

void print_contents(const checkpoint::OpenedState& state) {
  std::map<DType, std::pair<int64_t, int64_t>> totals;  // tensors, bytes
  for (const auto& tensor : state.tensors()) {
    totals[tensor.dtype].first += 1;
    totals[tensor.dtype].second += tensor.num_bytes();
  }
  fmt::print("step {}:\n", state.step());
  for (const auto& [dtype, total] : totals)
    fmt::print("  {} tensors {}, {}\n", total.first, checkpoint::file_dtype_name(checkpoint::file_dtype(dtype)),
               format_bytes(total.second));
  print_facts(state.facts(), "");
}

// The directory that holds the states of a run.
fs::path log_of(const fs::path& directory) {
  return fs::is_directory(directory / "state") ? directory / "state" : directory;
}

}  // namespace

bool holds_run_states(const fs::path& directory) {
  if (fs::exists(directory / "config.json")) return false;  // a model
  return fs::exists(directory / checkpoint::kManifestName) || fs::is_directory(directory / "state") ||
         !checkpoint::StateLog(directory, {}).steps().empty();
}

void inspect_run_states(const fs::path& directory) {
  if (fs::exists(directory / checkpoint::kManifestName)) {
    const checkpoint::OpenedState state(directory, system_files());
    print_verified(state, fs::exists(directory / checkpoint::kPinName));
    return print_contents(state);
  }
  checkpoint::StateLog log(log_of(directory), {});
  const std::vector<int64_t> steps = log.steps();
  if (steps.empty()) fmt::print("no run states yet\n");
  std::optional<checkpoint::OpenedState> newest;
  for (const int64_t step : steps) {
    try {
      checkpoint::OpenedState state = log.open(step);
      print_verified(state, log.is_pinned(step));
      newest.emplace(std::move(state));
    } catch (const Error& error) {
      fmt::print("step {:>8}  damaged: {}\n", step, error.what());
    }
  }
  if (newest) print_contents(*newest);
}

}  // namespace temper::app
