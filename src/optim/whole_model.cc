#include "optim/whole_model.h"

#include <map>
#include <string_view>

#include "base/check.h"

namespace temper::optim {

WholeModel WholeModel::of(std::span<layers::Parameter* const> parameters) {
  WholeModel whole;
  for (const layers::Parameter* p : parameters)
    if (p->trainable) whole.rows.push_back({p->name, p->whole_shape().size()});
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
