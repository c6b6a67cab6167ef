// How the queries of an attention call are cut into tiles, and tiles over threads.
//
// All heads of a run of consecutive queries make the rows of a tile. In training such queries see nearly the same keys,
// so the tile works on the union of their ranges, and each few rows of it on the part that they see; where ranges lie
// apart (decoding) the tile is one query. Entries that a query selected are masked out of all visible ones where these
// are not many more, else gathered query by query.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/ops.h"

namespace temper::backend {

inline constexpr int64_t kMaxTileQueries = 64;

// KeyRanges as plain pointers; entry_begin and entry_count are null when there are no entries, selected when all
// visible entries are.
struct AttentionRanges {
  AttentionRanges(const KeyRanges& ranges, int64_t num_queries);
  const int32_t *key_begin, *key_end, *entry_begin, *entry_count, *selected;
  int64_t num_queries, max_selected;

  int64_t num_entries(int64_t t) const { return entry_count == nullptr ? 0 : entry_count[t]; }
  // Query t attends to a proper subset of its visible entries.
  bool sparse(int64_t t) const;
};

// How many rows tiles have.
struct TileShape {
  // Of the queries of a call, none of whose tiles may have more rows (query, head) than max_rows.
  TileShape(int64_t num_queries, int64_t num_heads, int64_t max_rows);
  int64_t num_heads, max_queries;
  // No tile crosses a multiple of this. The same on any number of threads, so that tiles are.
  int64_t chunk;

  // Whether query t's selected entries are gathered, because masking all visible ones would cost more.
  bool gathers(const AttentionRanges& ranges, int64_t t) const;
  // About what query t costs.
  int64_t cost(const AttentionRanges& ranges, int64_t t) const;
};

// Queries [query_begin, query_end) with the unions of their window rows and, unless they gather, of their entries.
struct AttentionTile {
  int64_t query_begin, query_end;
  int64_t key_begin, key_end, entry_begin, entry_end;
  bool gathers;
};

// The longest tile from query t on whose unions are little longer than the ranges.
AttentionTile next_tile(const AttentionRanges& ranges, const TileShape& shape, int64_t t, int64_t end);

// num_parts + 1 ascending bounds, multiples of shape.chunk or the end, that cut the queries into parts of about equal
// cost.
std::vector<int64_t> partition_tiles(const AttentionRanges& ranges, const TileShape& shape, int num_parts);

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
