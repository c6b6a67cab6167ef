// Rotary tables out to a million positions.
#include "layers/rotary.h"

#include "layer_rig.h"

namespace temper::layers {
namespace {

const RotarySpec kCompress{64, 160000, true, 16, 32, 1, 65536};  // of CSA and HCA layers in both released models

// In float, frequency and product are rounded once each, as in the released programs: an angle is off by at most
// angle * 2^-23, and cos and sin with it. At position 2^20 that is an eighth of a radian for the fastest pair.
TEST(Rotary, AnglesToAMillionPositionsAgreeWithFloat64WithinTheirRounding) {
  RotarySpec spec = kCompress;
  spec.dims = 16;
  constexpr int64_t kPositions = 1 << 20;
  const auto& cpu = backend::cpu();
  backend::Stream* stream = cpu.device.stream_create();
  Ctx ctx{cpu.ops, cpu.device, stream, DType::kF32, DType::kF32};
  RotaryTable table("rotary", spec);
  Book book;
  table.declare(book, kPositions, DType::kF32);
  const backend::Arena arena(cpu.device, book);
  table.prepare(ctx);
  const auto frequencies = rotary_frequencies(spec);
  const float* values = table.cos_sin_LP2.data<float>();
  double worst = 0;
  for (int64_t position = 0; position < kPositions; position += position < 4096 ? 1 : 331) {
    for (size_t k = 0; k < frequencies.size(); ++k) {
      const double angle = static_cast<double>(position) * frequencies[k];
      const double bound = angle * 0x1p-23 + 1e-7;  // and the rounding of cos and sin themselves
      const float* found = values + (position * static_cast<int64_t>(frequencies.size()) + static_cast<int64_t>(k)) * 2;
      worst =
          std::max({worst, std::abs(found[0] - std::cos(angle)) / bound, std::abs(found[1] - std::sin(angle)) / bound});
    }
  }
  EXPECT_LE(worst, 1);
  EXPECT_GT(worst, 0.1) << "a bound that is never neared proves little";
  cpu.device.stream_destroy(stream);
}

}  // namespace
}  // namespace temper::layers
