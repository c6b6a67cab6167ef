#include "plan/choose_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "parallel/texts.h"

namespace temper::plan {
namespace {

constexpr size_t kNumShown = 4;  // that fit, and that do not

bool keeps(const std::optional<int64_t>& given, int64_t size) { return !given || *given == size; }

// dp 0 is as good as not given, as in a layout that is not chosen.
bool keeps_to(const LayoutRequest::Given& given, const parallel::Layout& layout) {
  return (given.dp == 0 || keeps(given.dp, layout.dp)) && keeps(given.ep, layout.ep) && keeps(given.pp, layout.pp) &&
         keeps(given.cp.value_or(1), layout.cp) && keeps(given.tp.value_or(1), layout.tp);
}

// Schedules of pipelines: those that need no more than what the run asks for.
std::vector<parallel::Schedule> schedules(const LayoutRequest& request) {
  using parallel::Schedule;
  if (request.given.schedule) return {*request.given.schedule};
  if (request.run.options.recompute != model::Recompute::kNone) return {Schedule::kOneFOneB};
  return {Schedule::kOneFOneB, Schedule::kZeroBubble};
}

std::vector<RankedLayout> candidates(const LayoutRequest& request) {
  std::vector<RankedLayout> list;
  const LayoutTimes times(request.run, request.speed);
  const std::vector<parallel::Schedule> orders = schedules(request);
  for (const parallel::Schedule schedule : orders) {
    for (int64_t zero = 0; zero <= 3; ++zero) {
      if (!keeps(request.given.zero, zero)) continue;
      parallel::Layout like;
      like.zero = zero, like.schedule = schedule, like.chunks = request.given.chunks.value_or(1);
      for (const parallel::Layout& layout : parallel::valid_layouts(request.num_ranks, request.run.config, like)) {
        const bool is_another = layout.pp > 1 || schedule == orders.front();
        if (is_another && keeps_to(request.given, layout)) list.push_back({layout, times.of(layout), {}});
      }
    }
  }
  // Of equally fast ones the first: fewer stages, fewer ranks for the experts, less that is shared out.
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.time.step < b.time.step; });
  return list;
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

std::string time_words(const LayoutTime& t) {
  std::string words = fmt::format("{:.4g} s a step: {:.4g} compute", t.step, t.compute);
  for (const auto& [name, seconds] : {std::pair{"bubble", t.bubble},
                                      {"experts", t.experts},
                                      {"stages", t.stages},
                                      {"gradients", t.gradients},
                                      {"weights", t.weights},
                                      {"optimizer", t.optimizer}})
    if (seconds > 0.005 * t.step) words += fmt::format(", {:.4g} {}", seconds, name);
  return words;
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
  request.given = {given("layout.dp", l.dp),        given("layout.ep", l.ep), given("layout.pp", l.pp),
                   given("layout.cp", l.cp),        given("layout.tp", l.tp), given("layout.zero", l.zero),
                   given("layout.chunks", l.chunks)};
  if (given("layout.schedule", 0)) request.given.schedule = parallel::schedule_of(l.schedule);
  request.num_ranks = num_ranks;
  request.memory_bytes = l.memory > 0 ? static_cast<int64_t>(l.memory * 1073741824.0) : memory_bytes;
  request.speed = {l.tflops * 1e12, l.bandwidth * 1e9, l.link * 1e9};
  return request;
}

LayoutRanking rank_layouts(const LayoutRequest& request) {
  std::vector<RankedLayout> list = candidates(request);
  if (list.empty()) {
    fail(ErrorCode::kInvalidArgument,
         "[layout] auto: no layout of {} ranks has all the axes that the run file gives; give fewer of them",
         request.num_ranks);
  }
  LayoutRanking ranking;
  ranking.num_candidates = static_cast<int64_t>(list.size());
  size_t num_fit = 0;
  for (RankedLayout& ranked : list) {
    DryRunRequest run = request.run;
    run.layout = ranked.layout;
    ranked.heaviest = heaviest_role(run);
    ranked.fits = request.memory_bytes == 0 || ranked.heaviest.total_bytes <= request.memory_bytes;
    ranking.layouts.push_back(ranked);
    if (ranked.fits && num_fit++ == 0) ranking.chosen = ranking.layouts.size() - 1;
    if (num_fit == kNumShown) break;
  }
  if (num_fit > 0) return ranking;
  const auto& least = *std::min_element(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return a.heaviest.total_bytes < b.heaviest.total_bytes;
  });
  fail(
      ErrorCode::kOutOfMemory,
      "[layout] auto: none of {} layouts of {} ranks fits into {} a rank. \"{}\" needs least, {} (stage {}). Take more "
      "ranks, lower train.tokens_per_micro_batch, set train.recompute = \"block\" or \"full\", or checkpoint.staging = "
      "false",
      list.size(), request.num_ranks, format_bytes(request.memory_bytes), least.layout.to_string(),
      memory_words(least.heaviest), least.heaviest.stage);
}

std::string describe(const LayoutRanking& ranking, const LayoutRequest& request) {
  const RankedLayout& chosen = ranking.layouts[ranking.chosen];
  const std::string limit =
      request.memory_bytes > 0 ? fmt::format(" that fits into {} a rank", format_bytes(request.memory_bytes)) : "";
  std::string text = fmt::format("layout of {} ranks, the fastest of {}{}: {}\n  {}\n  {}\n", request.num_ranks,
                                 ranking.num_candidates, limit, chosen.layout.to_string(), time_words(chosen.time),
                                 memory_words(chosen.heaviest));
  for (size_t i = 0; i < ranking.layouts.size(); ++i) {
    const RankedLayout& ranked = ranking.layouts[i];
    if (i == kNumShown && i < ranking.chosen)
      text += fmt::format("do not fit either: {} more that would be faster\n", ranking.chosen - i);
    if (i == ranking.chosen || (i >= kNumShown && !ranked.fits)) continue;
    text += fmt::format("{} {}\n  {}\n  {}\n", ranked.fits ? "slower:" : "does not fit:", ranked.layout.to_string(),
                        time_words(ranked.time), memory_words(ranked.heaviest));
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
