#include "checkpoint/state_log.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace temper::checkpoint {
namespace {

constexpr std::string_view kStatePrefix = "step-", kWritingPrefix = ".writing-", kReplacedPrefix = ".replaced-",
                           kRemovingPrefix = ".removing-";

std::string name_of(std::string_view prefix, int64_t step) { return std::string(prefix) + fmt::format("{:08}", step); }

// The step of a name that name_of gives with this prefix.
std::optional<int64_t> step_of(std::string_view prefix, const std::string& name) {
  if (!name.starts_with(prefix)) return std::nullopt;
  const std::string digits = name.substr(prefix.size());
  if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  const int64_t step = std::stoll(digits);
  return name == name_of(prefix, step) ? std::optional(step) : std::nullopt;
}

void write_and_sync(Files& files, const std::filesystem::path& path, std::string_view bytes) {
  const auto file = files.create(path);
  file->write(bytes.data(), static_cast<int64_t>(bytes.size()));
  file->sync();
}

}  // namespace

StateLog::StateLog(Path directory, Retention retention, Files& files)
    : directory_(std::move(directory)), retention_(retention), files_(files) {
  if (!directory_.has_filename()) directory_ = directory_.parent_path();  // it ended with a slash
  if (retention_.keep_last < 1 || retention_.keep_every < 0 || retention_.keep_best < 0)
    fail(ErrorCode::kInvalidArgument,
         "retention of run states: keep_last {} must be at least 1, keep_every {} and keep_best {} at least 0",
         retention_.keep_last, retention_.keep_every, retention_.keep_best);
}

StateLog::Path StateLog::path_of(int64_t step) const {
  const Path path = directory_ / name_of(kStatePrefix, step), replaced = directory_ / name_of(kReplacedPrefix, step);
  return !files_.exists(path) && files_.exists(replaced) ? replaced : path;
}

std::vector<int64_t> StateLog::steps() const {
  std::vector<std::string> names;
  try {
    names = files_.list(directory_);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kNotFound) throw;
  }
  std::set<int64_t> steps;
  for (const std::string& name : names)
    for (const std::string_view prefix : {kStatePrefix, kReplacedPrefix})
      if (const auto step = step_of(prefix, name)) steps.insert(*step);
  return {steps.begin(), steps.end()};
}

std::string StateLog::write(const StateContents& contents) {
  try {
    prepare(contents.step);
    return publish(contents, {write_part(contents, 0)});
  } catch (const Error&) {
    discard();
    throw;
  }
}

void StateLog::prepare(int64_t step) {
  recover();
  if (!std::exchange(has_durable_name_, true)) files_.sync_directory(directory_.parent_path());
  files_.make_directories(directory_ / name_of(kWritingPrefix, step));
}

StatePart StateLog::write_part(const StateContents& contents, int64_t rank) {
  return write_state_part(contents.tensors, directory_ / name_of(kWritingPrefix, contents.step), rank, files_);
}

std::string StateLog::publish(const StateContents& contents, const std::vector<StatePart>& parts) {
  StateManifest manifest;
  manifest.step = contents.step;
  manifest.facts = contents.facts;
  if (contents.score && std::isfinite(*contents.score)) manifest.score = contents.score;
  join_parts(parts, manifest);
  const Path staging = directory_ / name_of(kWritingPrefix, contents.step);
  const std::string text = manifest_text(manifest);
  parse_manifest(text, (staging / kManifestName).string());  // that every element was written once
  if (is_pinned(contents.step)) write_and_sync(files_, staging / kPinName, "");
  write_and_sync(files_, staging / kManifestName, text);
  files_.sync_directory(staging);
  name_staged(contents.step);
  is_good_[contents.step] = true;
  return manifest.hash;
}

void StateLog::discard() noexcept {
  try {
    recover();
  } catch (const Error&) {  // the failure before says more, and the next write tries again
  }
}

// Puts right what a killed or failed writer left.
void StateLog::recover() {
  files_.make_directories(directory_);
  for (const std::string& name : files_.list(directory_)) {
    const Path path = directory_ / name;
    if (step_of(kWritingPrefix, name) || step_of(kRemovingPrefix, name)) files_.remove_all(path);
    const auto replaced = step_of(kReplacedPrefix, name);
    if (!replaced) continue;
    const Path newer = directory_ / name_of(kStatePrefix, *replaced);
    if (files_.exists(newer)) {
      files_.sync_directory(directory_);
      files_.remove_all(path);
    } else {
      files_.rename(path, newer);
    }
  }
}

// Gives the staged state its name. An older state of the same step keeps all its bytes until that is durable.
void StateLog::name_staged(int64_t step) {
  const Path staging = directory_ / name_of(kWritingPrefix, step), path = directory_ / name_of(kStatePrefix, step),
             replaced = directory_ / name_of(kReplacedPrefix, step);
  const bool replaces = files_.exists(path);
  if (replaces) files_.rename(path, replaced);
  files_.rename(staging, path);
  files_.sync_directory(directory_);
  if (replaces) files_.remove_all(replaced);
}

OpenedState StateLog::open(int64_t step, Readers readers) {
  const Path path = path_of(step);
  if (!files_.exists(path))
    fail(ErrorCode::kNotFound, "there is no run state of step {} in {}", step, directory_.string());
  OpenedState state(path, files_, readers);
  if (state.step() != step)
    fail(ErrorCode::kCorrupt, "{}: this is the state of step {}; the directory has been renamed", path.string(),
         state.step());
  if (readers.size == 1) verified(step);
  return state;
}

std::optional<OpenedState> StateLog::open_newest(int64_t at_most_step, std::vector<DamagedState>& damaged) {
  std::vector<int64_t> newest_first = steps();
  std::reverse(newest_first.begin(), newest_first.end());
  for (const int64_t step : newest_first) {
    if (step > at_most_step) continue;
    try {
      return open(step);
    } catch (const Error& error) {
      damaged.push_back({step, error.what()});
    }
  }
  return std::nullopt;
}

bool StateLog::is_good(int64_t step) {
  const auto known = is_good_.find(step);
  if (known != is_good_.end()) return known->second;
  try {
    open(step);
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kIo) is_good_[step] = false;  // the next try may read it
    return false;
  }
}

// The good states among those with the best scores.
void StateLog::keep_by_score(const std::vector<int64_t>& steps, std::set<int64_t>& kept) {
  std::vector<std::pair<double, int64_t>> scored;
  for (const int64_t step : steps) {
    try {
      const StateManifest manifest = read_manifest(path_of(step), files_);
      if (manifest.score) scored.emplace_back(*manifest.score, step);
    } catch (const Error&) {  // damaged: not among the best
    }
  }
  std::sort(scored.begin(), scored.end());
  int64_t num_kept = 0;
  for (const auto& [score, step] : scored) {
    if (num_kept == retention_.keep_best) break;
    if (!is_good(step)) continue;
    kept.insert(step);
    ++num_kept;
  }
}

// Empty if no state is good.
std::set<int64_t> StateLog::kept(const std::vector<int64_t>& newest_first) {
  std::set<int64_t> kept;
  for (const int64_t step : newest_first) {
    if (static_cast<int64_t>(kept.size()) == retention_.keep_last) break;
    if (is_good(step)) kept.insert(step);
  }
  if (kept.empty()) return kept;
  if (retention_.keep_best > 0) keep_by_score(newest_first, kept);
  const int64_t newest_good =
      *std::find_if(newest_first.begin(), newest_first.end(), [&](int64_t step) { return kept.contains(step); });
  for (const int64_t step : newest_first) {
    const bool by_number = retention_.keep_every > 0 && step % retention_.keep_every == 0;
    if (step > newest_good || by_number || is_pinned(step)) kept.insert(step);
  }
  return kept;
}

std::vector<int64_t> StateLog::retain() {
  std::vector<int64_t> newest_first = steps();
  std::reverse(newest_first.begin(), newest_first.end());
  const std::set<int64_t> kept_steps = kept(newest_first);
  std::vector<int64_t> removed;
  if (kept_steps.empty()) return removed;
  std::copy_if(newest_first.rbegin(), newest_first.rend(), std::back_inserter(removed),
               [&](int64_t step) { return !kept_steps.contains(step); });
  if (!removed.empty()) files_.sync_directory(directory_);  // the names of what is kept, before anything goes
  for (const int64_t step : removed) remove(step);
  return removed;
}

void StateLog::remove(int64_t step) {
  const Path removing = directory_ / name_of(kRemovingPrefix, step);
  files_.rename(path_of(step), removing);
  files_.sync_directory(directory_);
  files_.remove_all(removing);
  is_good_.erase(step);
}

bool StateLog::is_pinned(int64_t step) const { return files_.exists(path_of(step) / kPinName); }

void StateLog::pin(int64_t step) {
  const Path path = path_of(step);
  if (!files_.exists(path))
    fail(ErrorCode::kNotFound, "there is no run state of step {} in {} to pin", step, directory_.string());
  write_and_sync(files_, path / kPinName, "");
  files_.sync_directory(path);
}

}  // namespace temper::checkpoint
