#include "data/loader.h"

#include <bit>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <thread>
#include <utility>

#include "base/error.h"
#include "data/hash.h"

namespace temper::data {
namespace {

constexpr size_t kStepsAhead = 3;

std::string fingerprint_of(const std::vector<Example>& examples, const RowStreamOptions& options) {
  Fnv hash;
  hash.add(static_cast<uint64_t>(options.row_tokens));
  hash.add(static_cast<uint64_t>(options.window_examples));
  hash.add(options.seed);
  hash.add(static_cast<uint64_t>(options.shuffle));
  for (const Example& example : examples) {
    hash.add(example.tokens.size());
    hash.add(std::bit_cast<uint32_t>(example.weight));
    for (size_t i = 0; i < example.tokens.size(); ++i)
      hash.add(static_cast<uint64_t>(example.tokens[i]) << 1 | example.trained[i]);
  }
  return fmt::format("{:016x}", hash.value());
}

std::vector<int64_t> lengths_of(const std::vector<Example>& examples) {
  std::vector<int64_t> lengths;
  lengths.reserve(examples.size());
  for (const Example& example : examples) lengths.push_back(static_cast<int64_t>(example.tokens.size()));
  return lengths;
}

}  // namespace

std::string LoaderPosition::to_json() const {
  return nlohmann::ordered_json{{"step", step},
                                {"epoch", row.epoch},
                                {"window", row.window},
                                {"row", row.row},
                                {"num_rows", num_rows},
                                {"num_tokens", num_tokens},
                                {"num_trained_tokens", num_trained_tokens},
                                {"fingerprint", fingerprint}}
      .dump();
}

LoaderPosition LoaderPosition::from_json(std::string_view text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) fail(ErrorCode::kCorrupt, "the saved position of the loader is not a JSON object");
  const auto number = [&](const char* key) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_number_integer() || found->get<int64_t>() < 0)
      fail(ErrorCode::kCorrupt, "the saved position of the loader has no \"{}\" that is a whole number", key);
    return found->get<int64_t>();
  };
  LoaderPosition position;
  position.step = number("step");
  position.row = {number("epoch"), number("window"), number("row")};
  position.num_rows = number("num_rows");
  position.num_tokens = number("num_tokens");
  position.num_trained_tokens = number("num_trained_tokens");
  const auto fingerprint = json.find("fingerprint");
  if (fingerprint == json.end() || !fingerprint->is_string())
    fail(ErrorCode::kCorrupt, "the saved position of the loader has no \"fingerprint\"");
  position.fingerprint = fingerprint->get<std::string>();
  return position;
}

layers::MicroBatch make_micro_batch(const std::vector<Example>& examples, const std::vector<int64_t>& row) {
  layers::MicroBatch batch;
  batch.cu_seqlens.push_back(0);
  for (const int64_t index : row) {
    const Example& example = examples[static_cast<size_t>(index)];
    const size_t length = example.tokens.size();
    for (size_t t = 0; t < length; ++t) {
      const bool has_target = t + 1 < length && example.trained[t + 1];
      batch.tokens.push_back(example.tokens[t]);
      batch.targets.push_back(has_target ? example.tokens[t + 1] : -1);
      batch.weights.push_back(has_target ? example.weight : 0);
    }
    batch.cu_seqlens.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

// Everything that the reading thread touches. It fills `ready_`; each step there carries the position after it.
class Loader::State {
 public:
  State(std::vector<Example> examples, const LoaderOptions& options)
      : examples_(std::move(examples)), options_(options), stream_(lengths_of(examples_), options.rows) {
    if (options.micro_batches_per_step < 1)
      fail(ErrorCode::kInvalidArgument, "a step needs at least 1 micro-batch, not {}", options.micro_batches_per_step);
    delivered_.fingerprint = fingerprint_of(examples_, options.rows);
    read_ = delivered_;
    start();
  }

  bool next(LoaderStep& step) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || at_end_ || failure_; });
    if (ready_.empty()) {
      step = {};
      if (failure_) std::rethrow_exception(failure_);
      return false;
    }
    step = std::move(ready_.front().first);
    delivered_ = std::move(ready_.front().second);
    ready_.pop_front();
    changed_.notify_all();
    return true;
  }

  void restore(const LoaderPosition& position) {
    if (position.fingerprint != delivered_.fingerprint)
      fail(ErrorCode::kInvalidArgument,
           "the saved position belongs to other data: fingerprint {}, here {}; the examples, the tokenizer, the row's "
           "capacity, "
           "the window and the seed must be those of the saved run",
           position.fingerprint, delivered_.fingerprint);
    RowStream there(lengths_of(examples_), options_.rows);
    there.seek(position.row);
    stop();
    stream_ = std::move(there);
    delivered_ = read_ = position;
    start();
  }

  int64_t count_steps() const {
    const RowStream stream(lengths_of(examples_), options_.rows);
    int64_t rows = 0;
    for (int64_t epoch = 0; epoch < options_.rows.num_epochs; ++epoch) rows += stream.count_rows(epoch);
    return (rows + options_.micro_batches_per_step - 1) / options_.micro_batches_per_step;
  }

  const LoaderPosition& delivered() const { return delivered_; }
  const LoaderOptions& options() const { return options_; }
  int64_t num_examples() const { return static_cast<int64_t>(examples_.size()); }

 private:
  void start() {
    ready_.clear();
    at_end_ = false;
    failure_ = nullptr;
    thread_ = std::jthread([this](const std::stop_token& stop) { read_ahead(stop); });
  }

  void stop() {
    thread_.request_stop();
    thread_.join();
  }

  void read_ahead(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      LoaderStep step;
      std::exception_ptr failure;
      try {
        step = read_step();
      } catch (...) {
        failure = std::current_exception();  // next() throws it on the caller's thread
      }
      std::unique_lock lock(mutex_);
      failure_ = failure;
      at_end_ = !failure && step.micro_batches.empty();
      if (!failure && !at_end_) {
        changed_.wait(lock, stop, [&] { return ready_.size() < kStepsAhead; });
        if (stop.stop_requested()) return;
        ready_.emplace_back(std::move(step), read_);
      }
      changed_.notify_all();
      if (failure || at_end_) return;
    }
  }

  LoaderStep read_step() {
    LoaderStep step;
    for (int64_t i = 0; i < options_.micro_batches_per_step; ++i) {
      const std::vector<int64_t> row = stream_.next();
      if (row.empty()) break;
      step.micro_batches.push_back(make_micro_batch(examples_, row));
      step.documents.emplace_back();
      for (const int64_t index : row) step.documents.back().push_back(&examples_[static_cast<size_t>(index)]);
      const layers::MicroBatch& batch = step.micro_batches.back();
      step.num_tokens += static_cast<int64_t>(batch.tokens.size());
      for (const int32_t target : batch.targets) step.num_trained_tokens += target >= 0;
    }
    step.epoch = stream_.epochs_read();
    read_.step += !step.micro_batches.empty();
    read_.row = stream_.position();
    read_.num_rows += static_cast<int64_t>(step.micro_batches.size());
    read_.num_tokens += step.num_tokens;
    read_.num_trained_tokens += step.num_trained_tokens;
    return step;
  }

  const std::vector<Example> examples_;
  const LoaderOptions options_;
  RowStream stream_;          // the thread's, while it runs
  LoaderPosition read_;       // the thread's: after the last step that it read
  LoaderPosition delivered_;  // the caller's: after the last step that it got

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<std::pair<LoaderStep, LoaderPosition>> ready_;
  bool at_end_ = false;
  std::exception_ptr failure_;
  std::jthread thread_;  // last: it is stopped and joined before what it uses goes
};

Loader::Loader(std::vector<Example> examples, const LoaderOptions& options)
    : state_(std::make_unique<State>(std::move(examples), options)) {}
Loader::~Loader() = default;

bool Loader::next(LoaderStep& step) { return state_->next(step); }
LoaderPosition Loader::position() const { return state_->delivered(); }
void Loader::restore(const LoaderPosition& position) { state_->restore(position); }
int64_t Loader::count_steps() const { return state_->count_steps(); }
int64_t Loader::num_examples() const { return state_->num_examples(); }

double Loader::padding_fraction() const {
  const LoaderPosition& position = state_->delivered();
  const auto capacity = static_cast<double>(position.num_rows * state_->options().rows.row_tokens);
  return capacity > 0 ? 1 - static_cast<double>(position.num_tokens) / capacity : 0;
}

}  // namespace temper::data
