#include "optim/update_meter.h"

#include <cmath>

namespace temper::optim {

double UpdateNorm::update_rms() const {
  return num_elements > 0 ? update / std::sqrt(static_cast<double>(num_elements)) : 0;
}

void UpdateMeter::declare(Book& book, DType acc) {
  book.declare(&squares_N2_, TensorKind::kScratch, "update_norms.squares", acc, {whole_.num_sums(), 2});
}

void UpdateMeter::begin(layers::Ctx& ctx) const {
  if (whole_.world) ctx.ops.fill(ctx.stream, squares_N2_, 0);
}

const LocalRow& UpdateMeter::row_of(const layers::Parameter& parameter, size_t i) const {
  CHECK(i < local_.size() && local_[i].parameter == &parameter, parameter.name, i);
  return local_[i];
}

View UpdateMeter::squares_2(const LocalRow& row, const Stretch& stretch) const {
  if (!row.is_counted) return {};
  return squares_N2_.slice(0, stretch.sum, stretch.sum + 1).reshape({2});
}

UpdateNorms UpdateMeter::read(layers::Ctx& ctx) const {
  const int64_t N = whole_.num_sums();
  if (whole_.world)
    whole_.world->all_reduce(ctx.stream, squares_N2_.reshape({2 * N}), comm::Reduce::kSum, {"update norms"});
  std::vector<double> squares_N2(2 * N);
  if (squares_N2_.dtype == DType::kF64) {
    ctx.device.copy_to_host(ctx.stream, squares_N2.data(), squares_N2_);
  } else {
    std::vector<float> values(2 * N);
    ctx.device.copy_to_host(ctx.stream, values.data(), squares_N2_);
    squares_N2.assign(values.begin(), values.end());
  }
  UpdateNorms norms;
  for (const WholeModel::Row& row : whole_.rows) {
    UpdateNorm of_row{.num_elements = row.num_elements};
    for (int64_t n = row.first_sum; n < row.first_sum + row.num_sums; ++n)
      of_row.update += squares_N2[2 * n], of_row.weight += squares_N2[2 * n + 1];
    for (UpdateNorm* norm : {&norms.global, &norms.group[static_cast<int>(group_of(row.name))]}) {
      norm->update += of_row.update, norm->weight += of_row.weight;
      norm->num_elements += of_row.num_elements;
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
