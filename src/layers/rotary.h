// Rotary position tables (architecture page 4.2): one for sliding-only layers, one (with YaRN) for layers that
// compress.
#pragma once

#include <string>
#include <vector>

#include "layers/ctx.h"
#include "tensor/book.h"

namespace temper::layers {

struct RotarySpec {
  int64_t dims = 0;  // R: rotated channels, the last of each head
  double theta = 10000;
  bool yarn = false;
  double factor = 1, beta_fast = 32, beta_slow = 1;
  int64_t original_positions = 0;
};

// R/2 frequencies f_k = theta^(-2k/R), with YaRN's ramp between the two correction dims when spec.yarn. No magnitude
// factor.
std::vector<double> rotary_frequencies(const RotarySpec& spec);

class RotaryTable {
 public:
  RotaryTable(std::string name, RotarySpec spec) : name_(std::move(name)), spec_(spec) {}
  void declare(Book& book, int64_t max_positions, DType acc);
  // Computes cos and sin of position * f_k. In f32 runs the frequency is rounded to float and multiplied in float, as
  // the released programs do (page 4.2); in f64 runs it is exact.
  void prepare(Ctx& ctx) const;
  View cos_sin_LP2;  // acc [position, pair, {cos, sin}]

 private:
  std::string name_;
  RotarySpec spec_;
};

}  // namespace temper::layers
