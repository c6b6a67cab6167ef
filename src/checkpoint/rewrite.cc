#include "checkpoint/rewrite.h"

#include <fmt/format.h>

#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/path_inside.h"
#include "base/thread.h"
#include "checkpoint/model_dir.h"
#include "checkpoint/rewrite_plan.h"
#include "checkpoint/rewrite_receipt.h"
#include "checkpoint/rewrite_staging.h"
#include "checkpoint/rewrite_stream.h"
#include "checkpoint/side_files.h"
#include "checkpoint/tensor_dir.h"

namespace temper::checkpoint {
namespace {

namespace fs = std::filesystem;

void refuse_same_directory(const fs::path& source, const fs::path& destination) {
  std::error_code error;
  if (fs::weakly_canonical(source, error) == fs::weakly_canonical(destination, error))
    fail(ErrorCode::kInvalidArgument, "{}: source and destination are the same directory; give another destination",
         destination.string());
}

// What is counted while threads work; tells the caller, one thread at a time.
class Meter {
 public:
  Meter(const RewritePlan& plan, const std::function<void(const RewriteProgress&)>& on_progress)
      : on_progress_(on_progress), start_(now_seconds()) {
    progress_.num_tensors = plan.num_pieces;
    progress_.num_bytes = plan.source_bytes;
  }

  void add(int64_t num_tensors, int64_t num_bytes, bool resumed = false) {
    std::lock_guard lock(mutex_);
    progress_.tensors_done += num_tensors;
    progress_.bytes_done += num_bytes;
    if (resumed) progress_.bytes_resumed += num_bytes;
    progress_.seconds = now_seconds() - start_;
    if (on_progress_) on_progress_(progress_);
  }
  double seconds() const { return now_seconds() - start_; }

 private:
  const std::function<void(const RewriteProgress&)>& on_progress_;
  std::mutex mutex_;
  const double start_;
  RewriteProgress progress_;
};

// Calls body(stream, piece index) for every piece of a file, each thread taking the next that is left; after the first
// failure no new piece is begun.
template <class Body>
void for_each_piece(const RewritePlan& plan, const TargetFile& file, Meter& meter, const Body& body) {
  std::atomic<size_t> next{0};
  parallel_for(std::min<int64_t>(num_threads(), static_cast<int64_t>(file.pieces.size())), 1,
               [&](int64_t begin, int64_t end, int) {
                 for (int64_t worker = begin; worker < end; ++worker) {
                   PieceStream stream(plan, [&](int64_t num_bytes) { meter.add(0, num_bytes); });
                   try {
                     for (size_t i = next++; i < file.pieces.size(); i = next++) body(stream, i);
                   } catch (...) {
                     next = file.pieces.size();
                     throw;
                   }
                 }
               });
}

// The lines of the receipt of a file that an earlier run finished, if it holds what they say.
std::optional<std::string> verified_receipt(const RewritePlan& plan, const TargetFile& file,
                                            const RewriteStaging& staging, Meter& meter) {
  const auto finished = staging.find_finished(file.name);
  if (!finished) return std::nullopt;
  const auto hashes = read_target_hashes(finished->receipt);
  std::error_code error;
  if (hashes.size() != file.pieces.size() || fs::file_size(finished->path, error) != uint64_t(file.num_bytes))
    return std::nullopt;
  const RandomFile written = RandomFile::open(finished->path);
  std::string header(file.header.size(), '\0');
  written.read(header.data(), static_cast<int64_t>(header.size()), 0);
  std::atomic<bool> is_equal{header == file.header};
  for_each_piece(plan, file, meter, [&](PieceStream& stream, size_t i) {
    if (is_equal && !(stream.hash_target(file.pieces[i], written) == hashes[i])) is_equal = false;
  });
  if (!is_equal) return std::nullopt;
  return finished->receipt;
}

void write_file(const RewritePlan& plan, const TargetFile& file, RewriteStaging& staging, Meter& meter) {
  std::vector<std::string> lines(file.pieces.size());
  RandomFile target = RandomFile::create(staging.part(file.name), file.num_bytes);
  target.write(file.header.data(), static_cast<int64_t>(file.header.size()), 0);
  for_each_piece(plan, file, meter, [&](PieceStream& stream, size_t i) {
    lines[i] = receipt_line(plan, file, file.pieces[i], stream.move(file.pieces[i], target));
    meter.add(1, 0);
  });
  target.sync();
  std::string receipt;
  for (const auto& line : lines) receipt += line + "\n";
  staging.finish(file.name, receipt);
}

void check_space(const fs::path& destination, int64_t needed_bytes) {
  std::error_code error;
  const auto space = fs::space(destination, error);
  if (error) fail(ErrorCode::kIo, "cannot ask for the free space of {}: {}", destination.string(), error.message());
  if (space.available < static_cast<uint64_t>(needed_bytes))
    fail(ErrorCode::kBudget,
         "{}: the converted files need {} bytes more, the disk has {} free; make room or give a directory on another "
         "disk",
         destination.string(), needed_bytes, space.available);
}

int64_t source_bytes_of(const RewritePlan& plan, const TargetFile& file) {
  int64_t sum = 0;
  for (const auto& piece : file.pieces) {
    const PieceRanges ranges = ranges_of(piece, plan);
    sum += ranges.source.num_bytes + ranges.source_scale.num_bytes;
  }
  return sum;
}

std::string make_index(const RewritePlan& plan) {
  nlohmann::json weight_map;
  int64_t total_bytes = 0;
  for (const auto& file : plan.files)
    for (const size_t i : file.targets) {
      weight_map[plan.targets[i].info.name] = file.name;
      total_bytes += plan.targets[i].info.num_bytes();
    }
  nlohmann::ordered_json index;
  index["metadata"] = {{"total_size", total_bytes}};
  index["weight_map"] = weight_map;
  return index.dump(2) + "\n";
}

RewriteReport make_report(const RewritePlan& plan) {
  RewriteReport report;
  report.num_tensors = plan.num_pieces;
  report.source_bytes = plan.source_bytes;
  for (const auto& target : plan.targets) report.destination_bytes += target.info.num_bytes();
  report.num_files = static_cast<int64_t>(plan.files.size());
  report.num_dropped = static_cast<int64_t>(plan.dropped.size());
  report.num_foreign = plan.num_foreign;
  report.missing = plan.missing;
  for (const auto& file : plan.files)
    for (const auto& piece : file.pieces) switch (piece.action) {
        case RewriteAction::kCopied:
          ++report.num_copied;
          break;
        case RewriteAction::kDequantised:
          ++report.num_dequantised;
          break;
        case RewriteAction::kQuantised:
          ++report.num_quantised;
          break;
        case RewriteAction::kCast:
          ++report.num_cast;
          break;
      }
  return report;
}

std::string dropped_lines(const RewritePlan& plan) {
  PieceStream stream(plan, [](int64_t) {});
  std::string lines;
  const auto add = [&](const StoredTensor& tensor, const SafetensorsFile& file) {
    const ByteRange range{file.offset_of(tensor), tensor.num_bytes()};
    lines += dropped_line(tensor, file, stream.hash(RandomFile::open(file.path()), range)) + "\n";
  };
  for (const WeightSource::Tensor* tensor : plan.dropped) {
    add(*tensor->encoded.weight, *tensor->file);
    if (tensor->encoded.scale) add(*tensor->encoded.scale, *tensor->scale_file);
  }
  return lines;
}

std::string config_json(const model::Config& config, const RewritePlan& plan, RewriteDType dtype) {
  if (dtype == RewriteDType::kSource)
    return make_config_json(config, "", plan.is_quantised ? Quantisation::kSource : Quantisation::kNone);
  return make_config_json(config, dtype == RewriteDType::kF32 ? "float32" : "bfloat16",
                          dtype == RewriteDType::kOfficial ? Quantisation::kOfficial : Quantisation::kNone);
}

// Everything but the weights and config.json; gives the names of what was written.
std::vector<std::string> write_companions(const fs::path& source, const RewritePlan& plan, RewriteStaging& staging) {
  std::vector<std::string> names;
  const auto write = [&](const std::string& name, const std::string& contents) {
    staging.write(name, contents);
    names.push_back(name);
  };
  if (plan.files.size() > 1) write(std::string(kIndexFileName), make_index(plan));
  constexpr const char* kGeneration = "generation_config.json";
  if (fs::exists(source / kGeneration)) write(kGeneration, read_file(path_inside(source, kGeneration)));
  for (const auto& name : tokenizer_files(source)) write(name.string(), read_file(path_inside(source, name)));
  return names;
}

}  // namespace

RewriteReport rewrite(const fs::path& source, const fs::path& destination, const RewriteOptions& options,
                      const std::function<void(const RewriteProgress&)>& on_progress) {
  refuse_same_directory(source, destination);
  const model::Config config = load_config(source);
  const WeightSource weights(source);
  const RewritePlan plan = plan_rewrite(weights, config, options);
  RewriteReport report = make_report(plan);
  RewriteStaging staging(destination, plan_text(source, options, plan), options.overwrite);

  Meter meter(plan, on_progress);
  std::vector<const TargetFile*> unfinished;
  int64_t needed_bytes = 0;
  for (const auto& file : plan.files) {
    if (verified_receipt(plan, file, staging, meter)) {
      meter.add(static_cast<int64_t>(file.pieces.size()), source_bytes_of(plan, file), true);
      ++report.num_resumed_files;
      continue;
    }
    unfinished.push_back(&file);
    needed_bytes += file.num_bytes;
  }
  check_space(destination, needed_bytes);
  for (const TargetFile* file : unfinished) write_file(plan, *file, staging, meter);

  std::string lines;
  std::vector<std::string> names = write_companions(source, plan, staging);
  for (const auto& file : plan.files) {
    lines += staging.receipt(file.name);
    names.push_back(file.name);
  }
  staging.write(kReceiptName, make_receipt(source, options, report, lines + dropped_lines(plan)));
  names.push_back(kReceiptName);
  staging.commit(names, config_json(config, plan, options.dtype));
  report.seconds = meter.seconds();
  return report;
}

}  // namespace temper::checkpoint
