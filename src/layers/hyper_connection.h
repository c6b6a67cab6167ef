// Manifold-constrained hyper-connections (mHC; architecture page 3, 12.A): M residual streams around a block.
//
//   u   = sum_i pre_i X_i                          what the block sees
//   X'_k = post_k y + sum_j comb[j, k] X_j          what it leaves behind; comb is summed over its FIRST index
//
// pre, post, comb come from the streams themselves (op hc_pre_forward). The same type with post and comb left
// out collapses the streams after the last layer (3.3).
#pragma once

#include <string>

#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::layers {

struct HyperDims {
  int64_t M, D;            // streams, hidden size
  int64_t sinkhorn_iters;  // column steps
  double rms_eps, hc_eps;
};

class HyperConnection {
 public:
  // What backward needs besides the streams and y. All acc.
  struct Saved {
    View post_TM, comb_TMM, mix_TY, rstd_T;
    Saved first(int64_t T) const;
  };
  struct Scratch {
    View dpost_TM, dcomb_TMM;  // acc
  };

  // Parameter names are prefix + "fn", "base", "scale". head: the collapse, whose names begin with "hc_".
  HyperConnection(const std::string& prefix, HyperDims dims, bool head, Dtypes dtypes);

  void collect(ParameterList& list);
  void declare_saved(Book& book, Saved& saved, int64_t max_tokens) const;
  void declare_scratch(Book& book, int64_t max_tokens);

  // Coefficients of all tokens, then u. Fills saved.
  void pre(Ctx& ctx, View u_TD, View x_TMD, const Saved& saved) const;
  // X' from X, y and the saved coefficients. xo must not alias x. Not for the head.
  void post(Ctx& ctx, View xo_TMD, View x_TMD, View y_TD, const Saved& saved) const;

  // In place: dx_TMD holds dX' on entry and the part of dX that flows through comb on return; dy_TD is written.
  void backward_post(Ctx& ctx, View dy_TD, View dx_TMD, View x_TMD, View y_TD, const Saved& saved) const;
  // Adds to dx_TMD what flows through u and through the coefficients; accumulates the parameters' gradients. Call after
  // backward_post of the same site (for the head: alone, on a zeroed dx).
  void backward_pre(Ctx& ctx, View dx_TMD, View du_TD, View x_TMD, const Saved& saved) const;

 private:
  HyperDims dims_;
  bool head_;
  Dtypes dtypes_;
  Parameter fn_, base_, scale_;
  Scratch scratch_;
};

}  // namespace temper::layers
