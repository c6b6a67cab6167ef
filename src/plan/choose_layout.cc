#include "plan/choose_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "parallel/texts.h"

namespace temper::plan {
namespace {

constexpr size_t kNumShown = 4;  // that fit, and that do not

bool keeps(const std::optional<int64_t>& given, int64_t size) { return !given || *given == size; }

// dp 0 is as good as not given, as in a layout that is not chosen.
bool keeps_to(const LayoutRequest::Given& given, const parallel::Layout& layout) {
  return (given.dp == 0 || keeps(given.dp, layout.dp)) && keeps(given.ep, layout.ep) && keeps(given.pp, layout.pp) &&
         keeps(given.cp, layout.cp) && keeps(given.tp, layout.tp);
}

// Whether every rank can have a row of a micro-batch, there is somebody to share with (zero), and exact mode holds
// (docs/parallel.md).
bool is_sensible(const LayoutRequest& request, const parallel::Layout& layout) {
  if (layout.cp * layout.tp > request.run.options.max_tokens) return false;
  if (layout.zero > 0 && !request.given.zero && layout.dp * layout.cp * layout.tp == 1) return false;
  const bool is_power = (layout.dp & (layout.dp - 1)) == 0;
  return !request.run.options.part.exact() || (layout.cp == 1 && layout.tp == 1 && is_power);
}

// Orders of pipelines and their chunks: those that need no more than what the run asks for.
std::vector<parallel::Layout> pipelines(const LayoutRequest& request) {
  using parallel::Schedule;
  const auto& given = request.given;
  std::vector<parallel::Layout> list;
  for (const auto& [schedule, chunks] : {std::pair<Schedule, int64_t>{Schedule::kOneFOneB, 1},
                                         {Schedule::kZeroBubble, 1},
                                         {Schedule::kInterleaved, 2},
                                         {Schedule::kInterleaved, 4}}) {
    const bool rebuilds = request.run.options.recompute != model::Recompute::kNone;
    const bool is_interleaved = schedule == Schedule::kInterleaved;
    if (given.schedule ? schedule != *given.schedule : rebuilds && schedule == Schedule::kZeroBubble) continue;
    parallel::Layout like;
    like.schedule = schedule, like.chunks = is_interleaved ? given.chunks.value_or(chunks) : 1;
    if (!keeps(given.chunks, like.chunks) || (is_interleaved && like.chunks == 1)) continue;
    if (std::find(list.begin(), list.end(), like) == list.end()) list.push_back(like);
  }
  return list;
}

struct Candidate {
  parallel::Layout layout;
  size_t number = 0;
  LayoutTime time;  // at least, until the pipeline has been simulated
  bool is_simulated = false;
  // Of equally fast ones the first: fewer stages, shards, heads' ranks and experts' ranks, less that is shared out.
  bool operator>(const Candidate& other) const {
    return std::pair(time.step, number) > std::pair(other.time.step, other.number);
  }
};

std::vector<Candidate> candidates(const LayoutRequest& request, LayoutTimes& times) {
  std::vector<Candidate> list;
  const std::vector<parallel::Layout> orders = pipelines(request);
  for (size_t order = 0; order < orders.size(); ++order) {
    for (int64_t zero = 0; zero <= 3; ++zero) {
      if (!keeps(request.given.zero, zero)) continue;
      parallel::Layout like = orders[order];
      like.zero = zero, like.overlap = request.overlap;
      for (const parallel::Layout& layout : parallel::valid_layouts(request.num_ranks, request.run.config, like)) {
        const bool is_another = layout.pp > 1 || order == 0;
        if (is_another && keeps_to(request.given, layout) && is_sensible(request, layout))
          list.push_back({layout, list.size(), times.at_least(layout)});
      }
    }
  }
  return list;
}

// Candidates from the fastest on. A pipeline is simulated when nothing else can be faster.
class ByTime {
 public:
  ByTime(const std::vector<Candidate>& list, LayoutTimes& times) : times_(times), queue_({}, list) {}

  std::optional<RankedLayout> next() {
    while (!queue_.empty()) {
      Candidate candidate = queue_.top();
      queue_.pop();
      if (candidate.is_simulated || candidate.layout.pp == 1) return RankedLayout{candidate.layout, candidate.time, {}};
      candidate.time = times_.of(candidate.layout), candidate.is_simulated = true;
      queue_.push(candidate);
    }
    return std::nullopt;
  }

 private:
  LayoutTimes& times_;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue_;
};

Role heaviest_of(const LayoutRequest& request, const parallel::Layout& layout) {
  DryRunRequest run = request.run;
  run.layout = layout;
  return heaviest_role(run);
}

// What of the ranks' memory is largest.
TensorKind largest_kind(const Role& role) {
  return static_cast<TensorKind>(std::max_element(role.bytes.begin(), role.bytes.end()) - role.bytes.begin());
}

std::string memory_words(const Role& role) {
  const TensorKind kind = largest_kind(role);
  return fmt::format("{} a rank, {} of them {}", format_bytes(role.total_bytes),
                     format_bytes(role.bytes[static_cast<int>(kind)]), tensor_kind_name(kind));
}

[[noreturn]] void fail_all_too_large(const LayoutRequest& request, LayoutTimes& times, LayoutRanking& ranking) {
  std::stable_sort(ranking.layouts.begin(), ranking.layouts.end(), [&](const auto& a, const auto& b) {
    return times.parameter_bytes(a.layout) < times.parameter_bytes(b.layout);
  });
  const RankedLayout* least = nullptr;
  for (RankedLayout& ranked : ranking.layouts) {
    if (least && times.parameter_bytes(ranked.layout) >= static_cast<double>(least->heaviest.total_bytes)) break;
    if (ranked.heaviest.total_bytes == 0) ranked.heaviest = heaviest_of(request, ranked.layout);
    if (!least || ranked.heaviest.total_bytes < least->heaviest.total_bytes) least = &ranked;
  }
  fail(
      ErrorCode::kOutOfMemory,
      "[layout] auto: none of {} layouts of {} ranks fits into {} a rank. \"{}\" needs least, {} (stage {}). Take more "
      "ranks, lower train.tokens_per_micro_batch, set train.recompute = \"block\" or \"full\", or checkpoint.staging = "
      "false",
      ranking.num_candidates, request.num_ranks, format_bytes(request.memory_bytes), least->layout.to_string(),
      memory_words(least->heaviest), least->heaviest.stage);
}

}  // namespace

LayoutRequest layout_request(const train::RunConfig& config, int64_t num_ranks, int64_t memory_bytes) {
  const auto& l = config.layout;
  const auto given = [&](const char* key, int64_t value) {
    const bool is_given = std::find(l.given.begin(), l.given.end(), key) != l.given.end();
    return is_given ? std::optional(value) : std::nullopt;
  };
  LayoutRequest request;
  request.run = dry_run_request(config);
  request.given = {given("layout.dp", l.dp),
                   given("layout.ep", l.ep),
                   given("layout.pp", l.pp),
                   given("layout.cp", l.cp),
                   given("layout.tp", l.tp),
                   given("layout.zero", l.zero),
                   given("layout.chunks", l.chunks),
                   given("layout.schedule", 0) ? std::optional(parallel::schedule_of(l.schedule)) : std::nullopt};
  request.overlap = l.overlap, request.num_ranks = num_ranks;
  request.memory_bytes = l.memory > 0 ? static_cast<int64_t>(l.memory * 1073741824.0) : memory_bytes;
  request.speed = {l.tflops * 1e12, l.bandwidth * 1e9, l.link * 1e9};
  return request;
}

LayoutRanking rank_layouts(const LayoutRequest& request) {
  LayoutTimes times(request.run, request.speed);
  const std::vector<Candidate> list = candidates(request, times);
  if (list.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "[layout] auto: no layout of {} ranks has all the axes that the run file gives; give fewer of them",
         request.num_ranks);
  }
  LayoutRanking ranking;
  ranking.num_candidates = static_cast<int64_t>(list.size());
  ByTime order(list, times);
  size_t num_fit = 0;
  while (auto ranked = order.next()) {
    // Its Book is made where it may fit or is shown.
    const double least = times.parameter_bytes(ranked->layout);
    const bool may_fit = request.memory_bytes == 0 || least <= static_cast<double>(request.memory_bytes);
    if (may_fit || ranking.layouts.size() < kNumShown) ranked->heaviest = heaviest_of(request, ranked->layout);
    ranked->fits = may_fit && (request.memory_bytes == 0 || ranked->heaviest.total_bytes <= request.memory_bytes);
    ranking.layouts.push_back(*ranked);
    if (ranked->fits && num_fit++ == 0) ranking.chosen = ranking.layouts.size() - 1;
    if (num_fit == kNumShown) break;
  }
  if (num_fit == 0) fail_all_too_large(request, times, ranking);
  return ranking;
}

std::string describe(const LayoutRanking& ranking, const LayoutRequest& request) {
  const RankedLayout& chosen = ranking.layouts[ranking.chosen];
  const std::string limit =
      request.memory_bytes > 0 ? fmt::format(" that fits into {} a rank", format_bytes(request.memory_bytes)) : "";
  std::string text = fmt::format("layout of {} ranks, the fastest of {}{}: {}\n  {}\n  {}\n", request.num_ranks,
                                 ranking.num_candidates, limit, chosen.layout.to_string(), describe(chosen.time),
                                 memory_words(chosen.heaviest));
  for (size_t i = 0; i < ranking.layouts.size(); ++i) {
    const RankedLayout& ranked = ranking.layouts[i];
    if (i == kNumShown && i < ranking.chosen)
      text += fmt::format("do not fit either: {} more that would be faster\n", ranking.chosen - i);
    if (i == ranking.chosen || (i >= kNumShown && !ranked.fits)) continue;
    text += fmt::format("{} {}\n  {}\n  {}\n", ranked.fits ? "slower:" : "does not fit:", ranked.layout.to_string(),
                        describe(ranked.time), memory_words(ranked.heaviest));
  }
  return text;
}

std::string choose_together(comm::Comm& world, int64_t memory_bytes, train::RunConfig& config) {
  auto& l = config.layout;
  if (!l.is_auto) return "";
  int64_t negative = -memory_bytes;
  world.all_reduce(nullptr, View(&negative, DType::kI64, {1}), comm::Reduce::kMax, {"memory of a rank"});
  std::string words, axes;
  if (world.rank() == 0) {
    const LayoutRequest request = layout_request(config, world.size(), -negative);
    const LayoutRanking ranking = rank_layouts(request);
    const parallel::Layout& chosen = ranking.layouts[ranking.chosen].layout;
    axes = fmt::format("{} {} {} {} {} {} {} {}", chosen.dp, chosen.ep, chosen.pp, chosen.cp, chosen.tp, chosen.zero,
                       parallel::to_string(chosen.schedule), chosen.chunks);
    words = describe(ranking, request);
  }
  std::istringstream(parallel::tell_all(&world, axes)) >> l.dp >> l.ep >> l.pp >> l.cp >> l.tp >> l.zero >>
      l.schedule >> l.chunks;
  return words;
}

}  // namespace temper::plan
