// Which rows go to which rank's experts, and when: the host's side of dispatch (post-training 4.3).
//
// Rows are the (token, slot) pairs of all ranks. A block is the rows of one source rank for one expert; an owner's
// blocks are ordered by expert, then source. It takes as many whole blocks in a round as its budget of rows holds, so
// that nothing is ever dropped. All ranks know all counts, and so the rounds of all.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace temper::layers {

// Experts start at multiples of this many rows, so that products meet few distinct shapes; rows between are zero.
inline constexpr int64_t kRowAlignment = 16;

// Which experts of every layer a rank has: [rank, rank + 1) * E / size.
struct ExpertPart {
  int64_t rank = 0, size = 1;
  // Rows, those of padding included, that the rank's experts take in a round; at least those of one rank's tokens. 0:
  // what comes at worst, all of it in one round. Read where size > 1.
  int64_t max_rows = 0;
  // Gradients of the experts are formed for every source rank apart, as that rank would alone, and added in the tree of
  // comm.h: their bits do not depend on size.
  bool exact = false;
};

// Rows, those of padding included, that come to a rank's experts at worst, when each of part.size ranks has num_tokens
// tokens and each token K distinct ones of E experts.
int64_t most_expert_rows(const ExpertPart& part, int64_t num_tokens, int64_t E, int64_t K);

// One round, as one rank sees it. S ranks, e local experts, N rows received, R rows with padding.
struct DispatchRound {
  // As a source: of its rows sorted by expert, [send_begin, send_begin + send_rows) go to each rank.
  std::vector<int64_t> send_begin_S, send_rows_S;
  // As an owner.
  std::vector<int64_t> recv_rows_S;
  int64_t first_block = 0, end_block = 0;  // number of a block: local expert * S + source
  std::vector<int32_t> offset_e1;          // first row of each expert, of padded rows; the last: R
  std::vector<int32_t> block_offset_B1;    // first row of each block, B = e * S. Of use in [first_block, end_block]
  std::vector<int32_t> from_R, row_N;      // received row of a padded one, -1: padding; and back

  int64_t num_rows() const { return offset_e1.back(); }
  int64_t num_received() const { return static_cast<int64_t>(row_N.size()); }
};

// count_SE: rows of each source rank for each expert. As many rounds for every rank of the group; at least one. No
// block may have more rows than part.max_rows (here 0: no bound).
std::vector<DispatchRound> make_dispatch_rounds(std::span<const int32_t> count_SE, const ExpertPart& part);

}  // namespace temper::layers
