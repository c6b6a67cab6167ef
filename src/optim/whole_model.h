// Where a rank's trained parameters stand among those of the whole model, so that what is measured of them can be added
// up over all ranks.
#pragma once

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "layers/parameter.h"

namespace temper::optim {

// What sums over parameters are cut into, each piece summed by itself and then added in the order of the whole tensor.
// kNone: nothing. kExperts: experts, so that it does not matter where whole ones stand. kAll: all parameters, and
// within experts, where up to Share::kPieces ranks' shares of them end, so that the layout does not matter.
enum class Pieces : uint8_t { kNone, kExperts, kAll };

struct WholeModel {
  struct Row {
    std::string name;
    int64_t num_elements = 0;
    int64_t piece = 0;                    // elements; the last one may be shorter
    int64_t first_sum = 0, num_sums = 1;  // one for each piece, among those of all rows
  };
  std::vector<Row> rows;        // the trained parameters, in the order of transformers' state dict
  comm::Comm* world = nullptr;  // null: one rank
  // Whether what this rank owns of a parameter is counted here: false where another rank owns the same.
  std::function<bool(const layers::Parameter&)> is_counted = [](const layers::Parameter&) { return true; };

  // Of one rank with all of these parameters.
  static WholeModel of(std::span<layers::Parameter* const> parameters, Pieces pieces = Pieces::kNone);
  int64_t num_sums() const { return rows.empty() ? 0 : rows.back().first_sum + rows.back().num_sums; }
};

// A trained parameter of this rank, and its row.
struct LocalRow {
  layers::Parameter* parameter;
  int64_t row;
  bool is_counted;
};
std::vector<LocalRow> local_rows(const WholeModel& whole, std::span<layers::Parameter* const> parameters);

// Elements [begin, end) of what this rank owns of a parameter, and the sum that they belong to. They are a whole piece
// unless a share ends within it.
struct Stretch {
  int64_t begin, end, sum;
};
template <class Body>
void for_each_stretch(const WholeModel& whole, const LocalRow& local, const Body& body) {
  const layers::Parameter& p = *local.parameter;
  const WholeModel::Row& row = whole.rows[local.row];
  const int64_t num_owned = p.num_owned();
  if (row.num_sums == 1 && num_owned > 0) return body(Stretch{0, num_owned, row.first_sum});
  for (int64_t at = 0; at < num_owned;) {
    const int64_t element = p.whole_index(p.owned_begin() + at), index = element / row.piece;
    const int64_t end = std::min(num_owned, at + (index + 1) * row.piece - element);
    body(Stretch{at, end, row.first_sum + index});
    at = end;
  }
}

}  // namespace temper::optim
