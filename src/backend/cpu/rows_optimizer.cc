// The sum of squares for the global norm, and AdamW.
#include <algorithm>
#include <cmath>

#include "backend/cpu/rows.h"
#include "backend/cpu/scratch.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

void sum_squares(Stream* stream, Out s_1, In x) {
  if (x.dtype != DType::kF32) return cpu_reference().ops.sum_squares(stream, s_1, x);
  // Blocks do not depend on the number of threads, and are summed in order.
  constexpr int64_t kBlock = 32 * 1024;
  const float* values = floats(x);
  const int64_t count = x.size(), num_blocks = (count + kBlock - 1) / kBlock;
  auto* sums = static_cast<double*>(shared_scratch(num_blocks * 8));
  parallel_for(num_blocks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t block = begin; block < end; ++block) {
      sums[block] = row_kernels().sum_squares(values + block * kBlock, std::min(kBlock, count - block * kBlock));
    }
  });
  double sum = 0;
  for (int64_t block = 0; block < num_blocks; ++block) sum += sums[block];
  *s_1.data<double>() = sum;
}

constexpr int64_t kAdamwBlock = 4 * 1024;  // elements

void adamw(Stream* stream, InOut master, InOut m, InOut v, Out value, Out squares_2, In grad, double lr, double beta1,
           double beta2, double eps, double decay, int64_t step, double grad_scale) {
  if (any_f64(master, m, v, value, squares_2, grad)) {
    return cpu_reference().ops.adamw(stream, master, m, v, value, squares_2, grad, lr, beta1, beta2, eps, decay, step,
                                     grad_scale);
  }
  CHECK(step >= 1, step);
  const int64_t count = master.size();
  CHECK(m.size() == count && v.size() == count && value.size() == count && grad.size() == count, master.to_string());
  CHECK(!squares_2.defined() || squares_2.size() == 2, squares_2.to_string());
  const auto steps = static_cast<double>(step);
  const AdamwFactors factors{static_cast<float>(grad_scale),
                             static_cast<float>(beta1),
                             static_cast<float>(beta2),
                             static_cast<float>(1 - lr * decay),
                             static_cast<float>(lr / (1 - std::pow(beta1, steps))),
                             static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, steps))),
                             static_cast<float>(eps)};
  float *w = floats(master), *mean = floats(m), *square = floats(v), *gradient = floats(grad);
  const Reals out = reals(value);
  // Blocks as for sum_squares: their sums do not depend on the number of threads.
  const int64_t num_blocks = (count + kAdamwBlock - 1) / kAdamwBlock;
  auto* sums = static_cast<double*>(shared_scratch(num_blocks * 2 * 8));
  parallel_for(num_blocks, 1, [&](int64_t first, int64_t last, int) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kAdamwBlock, length = std::min(kAdamwBlock, count - begin);
      row_kernels().adamw(w + begin, mean + begin, square + begin, out.at(begin), sums + 2 * block, gradient + begin,
                          factors, length);
    }
  });
  if (!squares_2.defined()) return;
  double total[2] = {};
  for (int64_t i = 0; i < 2 * num_blocks; ++i) total[i % 2] += sums[i];
  for (int i = 0; i < 2; ++i) floats(squares_2)[i] = static_cast<float>(total[i]);
}

}  // namespace

void register_optimizer_rows(OpTable& ops) {
  ops.sum_squares = sum_squares;
  ops.adamw = adamw;
}

}  // namespace temper::backend
