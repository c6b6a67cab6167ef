#include "optim/update_meter.h"

#include <cmath>

namespace temper::optim {

double UpdateNorm::update_rms() const {
  return num_elements > 0 ? update / std::sqrt(static_cast<double>(num_elements)) : 0;
}

UpdateMeter::UpdateMeter(std::span<layers::Parameter* const> parameters) {
  for (const layers::Parameter* p : parameters)
    if (p->trainable) trainable_.push_back(p);
}

void UpdateMeter::declare(Book& book, DType acc) {
  book.declare(&squares_P2_, TensorKind::kScratch, "update_norms.squares", acc,
               {static_cast<int64_t>(trainable_.size()), 2});
}

View UpdateMeter::squares_2(const layers::Parameter& parameter, size_t i) const {
  CHECK(i < trainable_.size() && trainable_[i] == &parameter, parameter.name, i);
  const auto index = static_cast<int64_t>(i);
  return squares_P2_.slice(0, index, index + 1).reshape({2});
}

UpdateNorms UpdateMeter::read(layers::Ctx& ctx) const {
  const auto P = static_cast<int64_t>(trainable_.size());
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
    for (UpdateNorm* norm : {&norms.global, &norms.group[static_cast<int>(group_of(trainable_[i]->name))]}) {
      norm->update += squares_P2[2 * i], norm->weight += squares_P2[2 * i + 1];
      norm->num_elements += trainable_[i]->master.size();
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
