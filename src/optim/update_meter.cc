#include "optim/update_meter.h"

#include <cmath>

namespace temper::optim {

double UpdateNorm::update_rms() const {
  return num_elements > 0 ? update / std::sqrt(static_cast<double>(num_elements)) : 0;
}

void UpdateMeter::declare(Book& book, DType acc) {
  book.declare(&squares_P2_, TensorKind::kScratch, "update_norms.squares", acc,
               {static_cast<int64_t>(whole_.rows.size()), 2});
}

void UpdateMeter::begin(layers::Ctx& ctx) const {
  if (whole_.world) ctx.ops.fill(ctx.stream, squares_P2_, 0);
}

View UpdateMeter::squares_2(const layers::Parameter& parameter, size_t i) const {
  CHECK(i < local_.size() && local_[i].parameter == &parameter, parameter.name, i);
  if (!local_[i].is_counted) return {};
  return squares_P2_.slice(0, local_[i].row, local_[i].row + 1).reshape({2});
}

UpdateNorms UpdateMeter::read(layers::Ctx& ctx) const {
  const auto P = static_cast<int64_t>(whole_.rows.size());
  if (whole_.world)
    whole_.world->all_reduce(ctx.stream, squares_P2_.reshape({2 * P}), comm::Reduce::kSum, {"update norms"});
  std::vector<double> squares_P2(2 * P);
  if (squares_P2_.dtype == DType::kF64) {
    ctx.device.copy_to_host(ctx.stream, squares_P2.data(), squares_P2_);
  } else {
    std::vector<float> values(2 * P);
    ctx.device.copy_to_host(ctx.stream, values.data(), squares_P2_);
    squares_P2.assign(values.begin(), values.end());
  }
  UpdateNorms norms;
  for (int64_t i = 0; i < P; ++i) {
    for (UpdateNorm* norm : {&norms.global, &norms.group[static_cast<int>(group_of(whole_.rows[i].name))]}) {
      norm->update += squares_P2[2 * i], norm->weight += squares_P2[2 * i + 1];
      norm->num_elements += whole_.rows[i].num_elements;
    }
  }
  const auto take_root = [](UpdateNorm& norm) {
    norm.update = std::sqrt(norm.update), norm.weight = std::sqrt(norm.weight);
  };
  take_root(norms.global);
  for (UpdateNorm& norm : norms.group) take_root(norm);
  return norms;
}

}  // namespace temper::optim
