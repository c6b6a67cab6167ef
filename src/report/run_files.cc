#include "report/run_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/lines.h"
#include "checkpoint/state_open.h"

namespace temper::report {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int64_t kMaxFileBytes = 64 << 20;
constexpr size_t kMaxLineBytes = 1 << 20;

// A link may lead out of the run.
bool is_file(const fs::path& path) { return fs::symlink_status(path).type() == fs::file_type::regular; }

std::string read_bounded(const fs::path& path) {
  const auto num_bytes = static_cast<int64_t>(fs::file_size(path));
  if (num_bytes > kMaxFileBytes)
    fail(ErrorCode::kCorrupt, "{} has {} bytes; at most {} are expected", path.string(), num_bytes, kMaxFileBytes);
  return read_file(path);
}

// Names in a directory that begin with a prefix, sorted; real directories only.
std::vector<fs::path> directories(const fs::path& parent, const std::string& prefix) {
  std::vector<fs::path> found;
  if (fs::symlink_status(parent).type() != fs::file_type::directory) return found;
  for (const fs::directory_entry& entry : fs::directory_iterator(parent)) {
    const bool is_real = entry.symlink_status().type() == fs::file_type::directory;
    if (is_real && entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool is_locked(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool refused = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(descriptor);
  return refused;
}

StateFacts read_state(const fs::path& directory) {
  const checkpoint::StateManifest manifest = checkpoint::read_manifest(directory, system_files());
  return {directory.filename().string(), manifest.step, manifest.num_bytes(), manifest.score, manifest.hash,
          is_file(directory / "pinned")};
}

std::vector<Sample> read_samples(const fs::path& path) {
  std::vector<Sample> samples;
  const std::string contents = read_bounded(path);
  const size_t whole = contents.find_last_of('\n') + 1;
  for_each_line(std::string_view(contents).substr(0, whole), [&](std::string_view line, int64_t number) {
    const std::string origin = fmt::format("{}:{}", path.string(), number);
    if (line.size() > kMaxLineBytes) fail(ErrorCode::kCorrupt, "{}: a line of {} bytes", origin, line.size());
    const Json json = parse_json<Json>(line, origin);
    const auto text = [&](const char* name) {
      const bool is_there = json.is_object() && json.contains(name) && json[name].is_string();
      return is_there ? json[name].get<std::string>() : std::string();
    };
    samples.push_back({text("prompt"), text("expected"), text("given")});
  });
  return samples;
}

// Damage in one part must not hide the others: a report is read when something went wrong.
void read_part(RunFiles& run, const std::function<void()>& read) {
  try {
    read();
  } catch (const Error& error) {
    run.notes.emplace_back(error.what());
  }
}

}  // namespace

RunFiles read_run_files(const fs::path& directory) {
  if (!fs::is_directory(directory))
    fail(ErrorCode::kNotFound, "{} is not a run directory; give the output.dir of a run", directory.string());
  RunFiles run;
  run.path = fs::absolute(directory).lexically_normal();
  run.log = read_run_log(directory);
  run.notes = run.log.notes;
  if (is_locked(directory)) {
    run.status = RunStatus::kRunning;
  } else if (is_file(directory / "model" / "config.json")) {
    run.status = RunStatus::kFinished;
  }
  if (is_file(directory / "run.json")) {
    read_part(run, [&] {
      Json json = parse_json<Json>(read_bounded(directory / "run.json"), (directory / "run.json").string());
      if (json.is_object()) run.description = std::move(json);
    });
  }
  read_part(run, [&] {
    const fs::path model = directory / "model" / "config.json";
    if (run.description.contains("model_config")) {
      run.model = model::parse_config(run.description["model_config"].dump(), "run.json: model_config");
    } else if (is_file(model)) {
      run.model = model::parse_config(read_bounded(model), model.string());
    }
  });
  for (const fs::path& state : directories(directory / "state", "step-"))
    read_part(run, [&] { run.states.push_back(read_state(state)); });
  for (const fs::path& incident : directories(directory, "incident-")) {
    const fs::path path = incident / "incident.json";
    if (!is_file(path)) continue;
    read_part(run, [&] {
      run.incidents.push_back({incident.filename().string(), parse_json<Json>(read_bounded(path), path.string())});
    });
  }
  if (is_file(directory / "samples.jsonl"))
    read_part(run, [&] { run.samples = read_samples(directory / "samples.jsonl"); });
  return run;
}

}  // namespace temper::report
