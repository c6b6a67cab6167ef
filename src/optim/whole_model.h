// Where a rank's trained parameters stand among those of the whole model, so that what is measured of them can be added
// up over all ranks.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "layers/parameter.h"

namespace temper::optim {

struct WholeModel {
  struct Row {
    std::string name;
    int64_t num_elements = 0;
  };
  std::vector<Row> rows;        // the trained parameters, in the order of transformers' state dict
  comm::Comm* world = nullptr;  // null: one rank
  // Whether what this rank owns of a parameter is counted here: false where another rank owns the same.
  std::function<bool(const layers::Parameter&)> is_counted = [](const layers::Parameter&) { return true; };
  // A parameter is summed in this many parts, equal on every layout, which are then added in order. 1: in one.
  int64_t num_pieces = 1;

  // Of one rank with all of these parameters.
  static WholeModel of(std::span<layers::Parameter* const> parameters);
};

// A trained parameter of this rank, and its row.
struct LocalRow {
  layers::Parameter* parameter;
  int64_t row;
  bool is_counted;
};
std::vector<LocalRow> local_rows(const WholeModel& whole, std::span<layers::Parameter* const> parameters);

}  // namespace temper::optim
