// How the queries of an attention call are cut into tiles, and tiles over threads.
//
// All heads of a run of consecutive queries make the rows of a tile. In training such queries see nearly the same keys,
// so the tile computes on the union of their ranges and masks; where ranges lie apart (decoding, sparse selections) the
// tile is one query.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/ops.h"

namespace temper::backend {

// KeyRanges as plain pointers; entry_begin and entry_count are null when there are no entries, selected when all
// visible entries are.
struct AttentionRanges {
  AttentionRanges(const KeyRanges& ranges, int64_t num_queries);
  const int32_t *key_begin, *key_end, *entry_begin, *entry_count, *selected;
  int64_t num_queries, max_selected;

  int64_t num_entries(int64_t t) const { return entry_count == nullptr ? 0 : entry_count[t]; }
  // Query t attends to a proper subset of its visible entries.
  bool sparse(int64_t t) const;
  // Query-key pairs of one head of query t: what it costs.
  int64_t num_pairs(int64_t t) const;
};

// Queries [query_begin, query_end) with the unions of their window rows and, unless sparse, of their entries.
struct AttentionTile {
  int64_t query_begin, query_end;
  int64_t key_begin, key_end, entry_begin, entry_end;
  bool sparse;  // then it is one query
};

// The longest tile of at most max_queries from query t on that wastes little on masked pairs.
AttentionTile next_tile(const AttentionRanges& ranges, int64_t t, int64_t end, int64_t max_queries);

// num_parts + 1 ascending bounds that cut queries [0, num_queries) into runs of about equal cost; cost(t) is that of
// query t.
template <class Cost>
std::vector<int64_t> partition_queries(int64_t num_queries, int num_parts, Cost cost) {
  int64_t total = 0;
  for (int64_t t = 0; t < num_queries; ++t) total += cost(t);
  std::vector<int64_t> bounds(num_parts + 1, num_queries);
  bounds[0] = 0;
  int part = 1;
  for (int64_t t = 0, sum = 0; t < num_queries; ++t) {
    while (part < num_parts && sum * num_parts >= total * part) bounds[part++] = t;
    sum += cost(t);
  }
  return bounds;
}

}  // namespace temper::backend
