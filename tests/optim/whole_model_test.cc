// Norms depend neither on where experts stand nor on how ranks share parameters.
#include "optim/whole_model.h"

#include <gtest/gtest.h>

#include <numeric>

#include "optim/clip.h"
#include "optim/one_parameter.h"

namespace temper::optim {
namespace {

using testing::OneParameter;
using testing::TestCtx;

constexpr int64_t kExperts = 16, kOfExpert = 32;

OneParameter experts() {
  OneParameter w(backend::cpu(), DType::kF32, {kExperts, 4, 8}, "model.layers.0.mlp.experts.down_proj");
  w.p.part.whole = w.p.shape;
  return w;
}

// Of experts of which the first has a gradient so large that those after it are lost in a sum that begins with it.
double norm_of(const std::vector<int32_t>& expert_at, Pieces pieces) {
  TestCtx test(backend::cpu(), DType::kF32);
  OneParameter w = experts();
  w.p.expert_at = expert_at;
  for (int64_t i = 0; i < w.p.shape.size(); ++i)
    w.p.grad.data<float>()[i] = w.p.whole_index(i) < kOfExpert ? 1e8f : 1.0f;
  layers::Parameter* parameters[] = {&w.p};
  NormMeter meter(WholeModel::of(parameters, pieces), parameters);
  Book book;
  meter.declare(book);
  backend::Arena arena(backend::cpu().device, book);
  return meter.measure(test.ctx).global;
}

TEST(WholeModelTest, NormsAreAddedByExpertWhereverItStands) {
  std::vector<int32_t> in_order(kExperts), turned(kExperts);
  std::iota(in_order.begin(), in_order.end(), 0);
  for (int64_t e = 0; e < kExperts; ++e) turned[e] = static_cast<int32_t>(kExperts - 1 - e);
  for (const Pieces pieces : {Pieces::kExperts, Pieces::kAll})
    EXPECT_EQ(norm_of(turned, pieces), norm_of(in_order, pieces));
  EXPECT_NE(norm_of(turned, Pieces::kNone), norm_of(in_order, Pieces::kNone)) << "the order would show";
}

// Whoever shares it with however many others, in whatever order: sums are of the same elements.
TEST(WholeModelTest, NoShareCutsAPiece) {
  OneParameter dense(backend::cpu(), DType::kF32, {77, 96}, "lm_head.weight"), w = experts();
  layers::Parameter* parameters[] = {&dense.p, &w.p};
  const WholeModel whole = WholeModel::of(parameters, Pieces::kAll);
  EXPECT_EQ(whole.rows[0].num_sums, 58) << "64 pieces of a multiple of 16 elements, as far as there are elements";
  EXPECT_EQ(whole.rows[1].piece, 16);
  EXPECT_EQ(whole.num_sums(), 58 + 32);
  const std::vector<std::vector<int32_t>> orders = {{}, {3, 1, 2, 0, 4, 5, 6, 7, 8, 9, 10, 11, 15, 13, 14, 12}};
  for (const auto& order : orders) {
    for (const int64_t size : {1, 2, 4, 32}) {
      std::vector<int64_t> elements(whole.num_sums());
      for (int64_t rank = 0; rank < size; ++rank) {
        dense.p.share = w.p.share = {rank, size}, w.p.expert_at = order;
        for (const LocalRow& local : local_rows(whole, parameters))
          for_each_stretch(whole, local, [&](const Stretch& s) {
            EXPECT_EQ(elements.at(s.sum), 0) << "of one rank alone";
            elements[s.sum] += s.end - s.begin;
          });
      }
      const int64_t total = std::accumulate(elements.begin(), elements.end(), int64_t{0});
      EXPECT_EQ(total, dense.p.shape.size() + w.p.shape.size());
    }
  }
}

}  // namespace
}  // namespace temper::optim
