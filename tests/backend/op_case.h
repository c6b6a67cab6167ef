// One call of one op, described apart from any backend, dtype or memory: what the conformance test runs everywhere.
//
//   OpCase c(OpId::hc_pre_forward, "7 x 4 x 33");
//   const int u = c.out("u", Kind::kAct, {T, D}), x = c.in("x", Kind::kAct, {T, M, D}), ...;
//   c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.hc_pre_forward(s, v[u], v[x], v[pre]); };
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backend/registry.h"
#include "base/philox.h"
#include "layers/ctx.h"

namespace temper::backend::test {

using layers::Precision;

// Dtype of an operand: kAct and kAcc depend on the precision of the run, the others are fixed.
enum class Kind : uint8_t { kAct, kAcc, kF64, kI32, kI64 };
DType dtype_of(Kind kind, Precision precision);

// kScratch is written by the op and never compared; what an In holds must not change.
enum class Role : uint8_t { kIn, kOut, kInOut, kScratch };

using Views = std::vector<View>;
using Window = std::function<View(const View&)>;  // cuts the operand's view out of its memory

struct Operand {
  std::string name;
  Kind kind;
  Role role;
  Shape memory;                // shape of the memory
  Window window;               // empty: the whole memory
  std::vector<double> values;  // elements of the view in row-major order; empty for Out and scratch
  int64_t compared_rows = -1;  // rows of dim 0 that the op defines; -1 = all
};

class OpCase {
 public:
  OpCase(OpId op, std::string label) : op(op), label(std::move(label)) {}

  // Each returns the operand's index into Views. `scale` draws normal(0, scale) values that bf16 holds exactly (kAct)
  // or f32 does (others); a case draws the same values on every machine.
  int in(std::string name, Kind kind, Shape shape, double scale, Window window = {});
  int in(std::string name, Kind kind, Shape shape, std::vector<double> values, Window window = {});
  int inout(std::string name, Kind kind, Shape shape, double scale, Window window = {});
  int inout(std::string name, Kind kind, Shape shape, std::vector<double> values);
  int out(std::string name, Kind kind, Shape shape, Window window = {});
  int scratch(std::string name, Kind kind, Shape shape);

  std::vector<double> draw(Kind kind, int64_t count, double scale);
  double uniform();  // in (0, 1)

  OpId op;
  std::string label;
  std::vector<Operand> operands;
  std::function<void(const OpTable&, Stream*, const Views&)> call;

 private:
  int add(Operand operand);
  Philox random_{20251122, RandomPurpose::kTest};
  uint64_t drawn_ = 0;
};

// Elements of every operand after the call, in row-major order of its view. Operands lie at odd element offsets between
// sentinel bytes; a sentinel or an In that changed is a test failure.
std::vector<std::vector<double>> run_case(const OpCase& op_case, const Backend& backend, Precision precision);

// Every case, op by op.
void add_movement_cases(std::vector<OpCase>& cases);
void add_product_cases(std::vector<OpCase>& cases);
void add_row_cases(std::vector<OpCase>& cases);
void add_hyper_cases(std::vector<OpCase>& cases);
void add_attention_cases(std::vector<OpCase>& cases);
void add_moe_cases(std::vector<OpCase>& cases);
void add_optimizer_cases(std::vector<OpCase>& cases);

}  // namespace temper::backend::test
