#include "layers/dispatch_rounds.h"

#include <algorithm>

#include "base/check.h"

namespace temper::layers {
namespace {

int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

// The exact sums need every source's rows as that source alone would have them.
int64_t block_alignment(const ExpertPart& part) { return part.exact ? kRowAlignment : 1; }

// Counts and their shape: S sources, E experts, e of them on every rank.
struct Counts {
  std::span<const int32_t> count_SE;
  int64_t S, E, e;

  int64_t rows(int64_t source, int64_t expert) const { return count_SE[source * E + expert]; }
  // Of an owner's block.
  int64_t block_rows(int64_t owner, int64_t block) const { return rows(block % S, owner * e + block / S); }
};

// Where the rounds of an owner begin, in blocks; their end behind the last.
std::vector<int64_t> round_starts(const Counts& counts, const ExpertPart& part, int64_t owner) {
  std::vector<int64_t> starts{0};
  int64_t row = 0;
  for (int64_t block = 0; block < counts.e * counts.S; ++block) {
    const int64_t rows = counts.block_rows(owner, block);
    if (block % counts.S == 0) row = round_up(row, kRowAlignment);
    if (part.max_rows > 0 && round_up(row + rows, kRowAlignment) > part.max_rows) {
      CHECK(round_up(rows, kRowAlignment) <= part.max_rows, rows, part.max_rows);
      starts.push_back(block);
      row = 0;
    }
    row += round_up(rows, block_alignment(part));
  }
  starts.push_back(counts.e * counts.S);
  return starts;
}

// What this rank, as an owner, receives in blocks [first, end), and where it puts the rows.
void lay_out(const Counts& counts, const ExpertPart& part, DispatchRound& round) {
  const int64_t S = counts.S;
  round.recv_rows_S.assign(S, 0);
  round.offset_e1.assign(counts.e + 1, 0);
  round.block_offset_B1.assign(counts.e * S + 1, 0);
  for (int64_t b = round.first_block; b < round.end_block; ++b)
    round.recv_rows_S[b % S] += counts.block_rows(part.rank, b);
  std::vector<int64_t> next_S(S, 0);  // next received row of each source: they come by source, then by expert
  for (int64_t s = 1; s < S; ++s) next_S[s] = next_S[s - 1] + round.recv_rows_S[s - 1];
  round.row_N.resize(next_S[S - 1] + round.recv_rows_S[S - 1]);

  const auto pad_to = [&](int64_t row) { round.from_R.resize(row, -1); };
  for (int64_t b = 0; b < counts.e * S; ++b) {
    if (b % S == 0) {
      pad_to(round_up(static_cast<int64_t>(round.from_R.size()), kRowAlignment));
      round.offset_e1[b / S] = static_cast<int32_t>(round.from_R.size());
    }
    round.block_offset_B1[b] = static_cast<int32_t>(round.from_R.size());
    const bool is_now = round.first_block <= b && b < round.end_block;
    for (int64_t i = is_now ? counts.block_rows(part.rank, b) : 0; i > 0; --i) {
      const int64_t received = next_S[b % S]++;
      round.row_N[received] = static_cast<int32_t>(round.from_R.size());
      round.from_R.push_back(static_cast<int32_t>(received));
    }
    pad_to(round_up(static_cast<int64_t>(round.from_R.size()), block_alignment(part)));
  }
  pad_to(round_up(static_cast<int64_t>(round.from_R.size()), kRowAlignment));
  round.offset_e1[counts.e] = round.block_offset_B1[counts.e * S] = static_cast<int32_t>(round.from_R.size());
}

}  // namespace

int64_t most_expert_rows(const ExpertPart& part, int64_t num_tokens, int64_t E, int64_t K) {
  // Where few ranks have few experts each, choices that are not distinct could bring more.
  const int64_t e = E / part.size, rows = std::max(part.size * num_tokens * std::min(K, e), num_tokens * K);
  const int64_t num_padded = part.exact ? e * part.size : e;
  return round_up(rows + num_padded * (kRowAlignment - 1), kRowAlignment);
}

std::vector<DispatchRound> make_dispatch_rounds(std::span<const int32_t> count_SE, const ExpertPart& part) {
  const int64_t S = part.size, E = static_cast<int64_t>(count_SE.size()) / S;
  const Counts counts{count_SE, S, E, E / S};
  CHECK(counts.e * S == E && E * S == static_cast<int64_t>(count_SE.size()), S, E, count_SE.size());

  std::vector<std::vector<int64_t>> starts;
  size_t num_rounds = 1;
  for (int64_t owner = 0; owner < S; ++owner) {
    starts.push_back(round_starts(counts, part, owner));
    num_rounds = std::max(num_rounds, starts.back().size() - 1);
  }
  std::vector<DispatchRound> rounds(num_rounds);
  int64_t row = 0;  // of this rank's rows sorted by expert
  for (int64_t owner = 0; owner < S; ++owner) {
    auto& begins = starts[owner];
    begins.resize(num_rounds + 1, begins.back());  // rounds in which an owner has nothing left
    for (size_t i = 0; i < num_rounds; ++i) {
      int64_t sent = 0;
      for (int64_t b = begins[i]; b < begins[i + 1]; ++b)
        if (b % S == part.rank) sent += counts.block_rows(owner, b);
      rounds[i].send_begin_S.push_back(row);
      rounds[i].send_rows_S.push_back(sent);
      row += sent;
    }
  }
  for (size_t i = 0; i < num_rounds; ++i) {
    rounds[i].first_block = starts[part.rank][i], rounds[i].end_block = starts[part.rank][i + 1];
    lay_out(counts, part, rounds[i]);
  }
  return rounds;
}

}  // namespace temper::layers
