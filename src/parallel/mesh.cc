#include "parallel/mesh.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "base/check.h"
#include "base/error.h"

namespace temper::parallel {
namespace {

constexpr size_t kNumNearest = 3;

int64_t num_ranks(const Layout& layout) { return layout.pp * layout.dp * layout.cp * layout.tp; }

// Something that the ranks of an axis share out evenly.
struct Share {
  const char* axis;
  int64_t num_ranks;
  const char* what;
  int64_t amount;
};

// What a resolved layout cannot share out of the model, if anything. The indexer's heads are no limit of tp: it splits
// the indexer's queries (post-training 4.4).
std::optional<Share> uneven_share(const Layout& layout, const model::Config& config) {
  const std::array<Share, 5> shares = {{{"tp", layout.tp, "num_attention_heads", config.num_attention_heads},
                                        {"tp", layout.tp, "o_groups", config.o_groups},
                                        {"tp", layout.tp, "vocab_size", config.vocab_size},
                                        {"ep", layout.ep, "n_routed_experts", config.n_routed_experts},
                                        {"ep", layout.ep, "dp * cp * tp", layout.dp * layout.cp * layout.tp}}};
  for (const Share& share : shares)
    if (share.amount % share.num_ranks != 0) return share;
  return std::nullopt;
}

// What a chunk of a stage has at least one of: the attention and the experts of every layer.
int64_t num_sites(const model::Config& config) { return 2 * config.num_hidden_layers; }

bool fits(const Layout& layout, const model::Config& config) {
  return layout.pp * layout.chunks <= num_sites(config) && !uneven_share(layout, config);
}

// How far apart two layouts are: the factors between their axes, as powers of two; an axis that was not asked for costs
// one more. An open dp is near to any.
double distance(const Layout& asked, const Layout& other) {
  const auto apart = [](int64_t asked_size, int64_t size) {
    const auto a = static_cast<double>(std::max<int64_t>(asked_size, 1)), b = static_cast<double>(size);
    return std::abs(std::log2(a / b)) + (asked_size == 1 && size > 1 ? 1 : 0);
  };
  return (asked.dp == 0 ? 0 : apart(asked.dp, other.dp)) + apart(asked.ep, other.ep) + apart(asked.pp, other.pp) +
         apart(asked.cp, other.cp) + apart(asked.tp, other.tp);
}

std::vector<int64_t> divisors(int64_t n) {
  std::vector<int64_t> list;
  for (int64_t d = 1; d <= n; ++d)
    if (n % d == 0) list.push_back(d);
  return list;
}

// The valid layouts of world_size ranks that are nearest to what was asked, in words.
std::string nearest_layouts(const Layout& asked, int64_t world_size, const model::Config& config) {
  struct Candidate {
    double distance;
    Layout layout;
  };
  std::vector<Candidate> best;  // nearest first
  for (const Layout& layout : valid_layouts(world_size, config, asked)) {
    const Candidate candidate{distance(asked, layout), layout};
    const auto place = std::upper_bound(best.begin(), best.end(), candidate,
                                        [](const auto& a, const auto& b) { return a.distance < b.distance; });
    if (place == best.end() && best.size() == kNumNearest) continue;
    best.insert(place, candidate);
    if (best.size() > kNumNearest) best.pop_back();
  }
  std::string words;
  for (const Candidate& candidate : best)
    words += fmt::format("{}\"{}\"", words.empty() ? "" : " or ", candidate.layout.to_string());
  return words;
}

// Ends every refusal: best is never empty, since data parallelism alone always fits.
[[noreturn]] void refuse(const std::string& why, const Layout& asked, int64_t world_size, const model::Config& config) {
  fail(ErrorCode::kInvalidArgument, "[layout] {}; the nearest valid layouts of a world of {}: {}", why, world_size,
       nearest_layouts(asked, world_size, config));
}

void check_axes(const Layout& layout, int64_t world_size, const model::Config& config) {
  if (layout.zero < 0 || layout.zero > 3)
    fail(ErrorCode::kInvalidArgument,
         "[layout] zero = {} is not a level: 0 shares out nothing, 1 masters and moments, "
         "2 also gradients, 3 also weights",
         layout.zero);
  struct Size {
    const char* axis;
    int64_t size, least;
  };
  for (const Size& s : {Size{"dp", layout.dp, 0}, Size{"ep", layout.ep, 1}, Size{"pp", layout.pp, 1},
                        Size{"cp", layout.cp, 1}, Size{"tp", layout.tp, 1}}) {
    if (s.size < s.least)
      refuse(fmt::format("{} = {} is not a number of ranks", s.axis, s.size), layout, world_size, config);
    if (s.size > world_size)
      refuse(fmt::format("{} = {} is more than the {} ranks that were started", s.axis, s.size, world_size), layout,
             world_size, config);
  }
}

int64_t rank_of(const Layout& layout, const MeshRank& at) {
  return ((at.pp * layout.dp + at.dp) * layout.cp + at.cp) * layout.tp + at.tp;
}

}  // namespace

std::string Layout::to_string() const {
  std::string words;
  const auto add = [&](const char* axis, int64_t size) {
    if (size > 1) words += fmt::format("{} {}, ", axis, size);
  };
  add("dp", dp), add("ep", ep), add("pp", pp), add("cp", cp), add("tp", tp);
  if (schedule != Schedule::kOneFOneB) words += parallel::to_string(schedule) + ", ";
  add("chunks", chunks);
  if (words.empty() && dp == 1) words = "one rank, ";
  return words + fmt::format("zero {}{}", zero, overlap ? ", overlap" : "");
}

Layout resolve(const Layout& layout, int64_t world_size, const model::Config& config) {
  CHECK(world_size > 0, world_size);
  check_axes(layout, world_size, config);
  int64_t rest = world_size;
  bool divides = true;
  for (const int64_t size : {layout.pp, layout.cp, layout.tp, std::max<int64_t>(layout.dp, 1)}) {
    divides = divides && rest % size == 0;
    if (divides) rest /= size;
  }
  if (!divides || (layout.dp > 0 && rest != 1)) {
    const std::string dp = layout.dp > 0 ? fmt::format("dp {} x ", layout.dp) : "";
    refuse(fmt::format("asks for {}pp {} x cp {} x tp {} ranks, which {} the {} that were started", dp, layout.pp,
                       layout.cp, layout.tp, layout.dp > 0 ? "are not" : "do not divide", world_size),
           layout, world_size, config);
  }
  Layout resolved = layout;
  if (layout.dp == 0) resolved.dp = rest;
  if (layout.pp > num_sites(config))
    refuse(fmt::format("pp = {} stages are more than the attentions and experts of the model's {} layers", layout.pp,
                       config.num_hidden_layers),
           layout, world_size, config);
  check_pipeline(layout.schedule, layout.pp, layout.chunks);
  if (layout.chunks > num_sites(config) / layout.pp)
    refuse(fmt::format("chunks = {} for each of {} stages are more than the attentions and experts of the model's {} "
                       "layers",
                       layout.chunks, layout.pp, config.num_hidden_layers),
           layout, world_size, config);
  if (const auto share = uneven_share(resolved, config))
    refuse(fmt::format("{} = {} does not divide {} = {}", share->axis, share->num_ranks, share->what, share->amount),
           layout, world_size, config);
  return resolved;
}

std::vector<Layout> valid_layouts(int64_t world_size, const model::Config& config, const Layout& like) {
  std::vector<Layout> list;
  const std::vector<int64_t> sizes = divisors(world_size);
  for (const int64_t pp : sizes) {
    for (const int64_t cp : sizes) {
      for (const int64_t tp : sizes) {
        if (world_size / pp % cp != 0 || world_size / pp / cp % tp != 0) continue;
        for (const int64_t ep : sizes) {
          Layout layout{world_size / pp / cp / tp, ep, pp, cp, tp, like.zero};
          layout.overlap = like.overlap;
          if (pp > 1) layout.schedule = like.schedule, layout.chunks = like.chunks;
          if (fits(layout, config)) list.push_back(layout);
        }
      }
    }
  }
  return list;
}

int64_t largest_world(const Layout& layout, int64_t at_most) {
  const int64_t without_dp = layout.pp * layout.cp * layout.tp;
  CHECK(without_dp > 0 && layout.ep > 0, layout.to_string());
  // ep divides the dp * cp * tp ranks of a stage.
  const int64_t least_dp = layout.dp > 0 ? layout.dp : layout.ep / std::gcd(layout.ep, layout.cp * layout.tp);
  const int64_t unit = without_dp * least_dp;
  if (unit > at_most) return 0;
  return layout.dp > 0 ? unit : at_most / unit * unit;
}

MeshRank mesh_rank(const Layout& layout, int64_t rank) {
  CHECK(layout.dp > 0 && rank >= 0 && rank < num_ranks(layout), rank, layout.to_string());
  MeshRank at;
  const int64_t stage = layout.dp * layout.cp * layout.tp, plane = rank % stage;
  at.tp = plane % layout.tp;
  at.cp = plane / layout.tp % layout.cp;
  at.dp = plane / layout.tp / layout.cp;
  at.ep = plane % layout.ep;
  at.edp = plane / layout.ep;
  at.pp = rank / stage;
  return at;
}

Group group(const Layout& layout, int64_t rank, Axis axis) {
  const MeshRank at = mesh_rank(layout, rank);
  const int64_t plane = (at.dp * layout.cp + at.cp) * layout.tp + at.tp;
  MeshRank first = at;  // of the group
  const auto first_in_plane = [&](int64_t place) {
    first.dp = place / layout.tp / layout.cp, first.cp = place / layout.tp % layout.cp, first.tp = place % layout.tp;
  };
  Group group{};
  switch (axis) {
    case Axis::kDp:
      group = {"dp", 0, at.dp}, first.dp = 0;
      break;
    case Axis::kCp:
      group = {"cp", 0, at.cp}, first.cp = 0;
      break;
    case Axis::kTp:
      group = {"tp", 0, at.tp}, first.tp = 0;
      break;
    case Axis::kPp:
      group = {"pp", 0, at.pp}, first.pp = 0;
      break;
    case Axis::kEp:
      group = {"ep", 0, at.ep}, first_in_plane(plane - at.ep);
      break;
    case Axis::kEdp:
      group = {"edp", 0, at.edp}, first_in_plane(at.ep);
      break;
    case Axis::kData:
      group = {"data", 0, plane}, first_in_plane(0);
      break;
    case Axis::kSlices:
      group = {"slices", 0, plane / layout.tp}, first_in_plane(at.tp);
      break;
  }
  group.color = rank_of(layout, first);
  return group;
}

}  // namespace temper::parallel
