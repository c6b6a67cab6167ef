#include "optim/whole_model.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "base/check.h"
#include "model/parameter_memory.h"

namespace temper::optim {

namespace {

// The largest power of two that divides n.
int64_t power_in(int64_t n) { return n & -n; }

int64_t piece_of(const layers::Parameter& p, Pieces pieces) {
  using layers::Share;
  const int64_t num_elements = p.whole_shape().size();
  if (pieces == Pieces::kNone) return num_elements;
  if (!model::is_expert(p)) return pieces == Pieces::kAll ? Share{0, Share::kPieces}.piece(num_elements) : num_elements;
  const int64_t of_expert = num_elements / p.whole_shape()[0];
  if (pieces == Pieces::kExperts || of_expert % Share::kPieceAlignment != 0) return of_expert;
  return std::max(Share::kPieceAlignment, std::min(power_in(of_expert), power_in(num_elements) / Share::kPieces));
}

}  // namespace

WholeModel WholeModel::of(std::span<layers::Parameter* const> parameters, Pieces pieces) {
  WholeModel whole;
  for (const layers::Parameter* p : parameters) {
    if (!p->trainable) continue;
    const int64_t num_elements = p->whole_shape().size(), piece = piece_of(*p, pieces);
    whole.rows.push_back({p->name, num_elements, piece, whole.num_sums(), (num_elements + piece - 1) / piece});
  }
  return whole;
}

std::vector<LocalRow> local_rows(const WholeModel& whole, std::span<layers::Parameter* const> parameters) {
  std::map<std::string_view, int64_t> row_of;
  for (size_t row = 0; row < whole.rows.size(); ++row) row_of[whole.rows[row].name] = static_cast<int64_t>(row);
  std::vector<LocalRow> rows;
  for (layers::Parameter* p : parameters) {
    if (!p->trainable) continue;
    CHECK(row_of.contains(p->name), p->name);
    rows.push_back({p, row_of.at(p->name), whole.is_counted(*p)});
  }
  return rows;
}

}  // namespace temper::optim
