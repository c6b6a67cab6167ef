// The routed experts of a rank, on rows sorted by expert (architecture page 6.2, 12.F):
//
//   gu = W13_e x;   a = w * swiglu(gu);   y = W2_e a            row r of expert e, w its router weight
//
// The router weight is applied before W2, as the released program does: one rounding less.
#pragma once

#include <string>

#include "layers/dispatch.h"

namespace temper::layers {

struct ExpertDims {
  int64_t D, F, E;  // hidden, expert width, experts of all ranks
  double swiglu_limit;
  ExpertPart part;
};

class Experts {
 public:
  // Names: prefix + gate_up_proj [e, 2F, D], down_proj [e, D, F]; e experts from part.rank * e on.
  Experts(const std::string& prefix, ExpertDims dims, Dtypes dtypes);

  void collect(ParameterList& list) { list.insert(list.end(), {&gate_up_, &down_}); }
  void declare_scratch(Book& book, int64_t max_rows, bool train);

  void gate_up(Ctx& ctx, View gu_RG, View x_RD, const ExpertRows& rows) const;
  // y from gu.
  void down(Ctx& ctx, View y_RD, View gu_RG, View weight_R1, const ExpertRows& rows) const;

  // This one first: gradients of the router weights, and inside those of gu, which the others read.
  void backward_down(Ctx& ctx, View dweight_R1, View dy_RD, View gu_RG, View weight_R1, const ExpertRows& rows) const;
  // The parameters' gradients accumulate; where one is frozen nothing is done.
  void backward_down_weight(Ctx& ctx, View dy_RD, const ExpertRows& rows) const;
  void backward_input(Ctx& ctx, View dx_RD, const ExpertRows& rows) const;
  bool trains_gate_up() const { return gate_up_.grad.defined(); }
  void backward_gate_up_weight(Ctx& ctx, View x_RD, const ExpertRows& rows) const;

 private:
  void add_products(Ctx& ctx, const Parameter& p, View stack_SNK, View dy_RN, View x_RK, const ExpertRows& rows) const;
  bool sums_apart() const { return dims_.part.exact && dims_.part.size > 1; }

  ExpertDims dims_;
  Dtypes dtypes_;
  Parameter gate_up_, down_;
  struct Scratch {
    View a_RF, da_RF, dgu_RG;                // act
    View gate_up_stack_SND, down_stack_SDF;  // acc: products of one expert's rows of each source; N = 2F
  } scratch_;
};

}  // namespace temper::layers
