// Hyper-connections on the CPU: splits tokens over threads and calls the kernels of the best instruction level. What
// has no kernel (f64 operands, other than 4 streams) goes to the scalar reference.
#include "backend/cpu/hyper.h"

#include "backend/cpu/cpu_internal.h"

#define TEMPER_KERNELS "backend/cpu/hyper_kernels.inc"
#include "backend/cpu/tile_for_each_isa.h"
#include "backend/registry.h"
#include "base/thread.h"

namespace temper::backend {
namespace {

constexpr int64_t kNumStreams = 4;
constexpr int64_t kGrainTokens = 16;

bool has_kernel(const View& x_TMD) {
  return x_TMD.dim(1) == kNumStreams && (x_TMD.dtype == DType::kF32 || x_TMD.dtype == DType::kBF16) &&
         x_TMD.contiguous();
}

float* data_or_null(const View& view) { return view.defined() ? view.data<float>() : nullptr; }

template <class T>
void pre_forward(const View& u_TD, const View& x_TMD, const View& pre_TM) {
  const auto kernel = TEMPER_BEST_ISA(hc_pre_forward_rows<T>);
  parallel_for(u_TD.dim(0), kGrainTokens, [&](int64_t begin, int64_t end, int) {
    kernel(begin, end, u_TD.dim(1), u_TD.data<T>(), x_TMD.data<T>(), pre_TM.data<float>());
  });
}

void hc_pre_forward(Stream* stream, Out u_TD, In x_TMD, In pre_TM) {
  if (!has_kernel(x_TMD)) return cpu_reference().ops.hc_pre_forward(stream, u_TD, x_TMD, pre_TM);
  x_TMD.dtype == DType::kF32 ? pre_forward<float>(u_TD, x_TMD, pre_TM) : pre_forward<bf16>(u_TD, x_TMD, pre_TM);
}

template <class T>
void pre_backward(const View& dx_TMD, const View& dpre_TM, const View& du_TD, const View& x_TMD, const View& pre_TM) {
  const auto kernel = TEMPER_BEST_ISA(hc_pre_backward_rows<T>);
  parallel_for(du_TD.dim(0), kGrainTokens, [&](int64_t begin, int64_t end, int) {
    kernel(begin, end, du_TD.dim(1), dx_TMD.data<float>(), dpre_TM.data<float>(), du_TD.data<float>(), x_TMD.data<T>(),
           pre_TM.data<float>());
  });
}

void hc_pre_backward(Stream* stream, InOut dx_TMD, Out dpre_TM, In du_TD, In x_TMD, In pre_TM) {
  if (!has_kernel(x_TMD)) return cpu_reference().ops.hc_pre_backward(stream, dx_TMD, dpre_TM, du_TD, x_TMD, pre_TM);
  x_TMD.dtype == DType::kF32 ? pre_backward<float>(dx_TMD, dpre_TM, du_TD, x_TMD, pre_TM)
                             : pre_backward<bf16>(dx_TMD, dpre_TM, du_TD, x_TMD, pre_TM);
}

template <class T>
void post_forward(const View& xo_TMD, const View& x_TMD, const View& y_TD, const View& post_TM, const View& comb_TMM) {
  const auto kernel = TEMPER_BEST_ISA(hc_post_forward_rows<T>);
  parallel_for(y_TD.dim(0), kGrainTokens, [&](int64_t begin, int64_t end, int) {
    kernel(begin, end, y_TD.dim(1), xo_TMD.data<T>(), x_TMD.data<T>(), y_TD.data<T>(), post_TM.data<float>(),
           comb_TMM.data<float>());
  });
}

void hc_post_forward(Stream* stream, Out xo_TMD, In x_TMD, In y_TD, In post_TM, In comb_TMM) {
  if (!has_kernel(x_TMD)) return cpu_reference().ops.hc_post_forward(stream, xo_TMD, x_TMD, y_TD, post_TM, comb_TMM);
  x_TMD.dtype == DType::kF32 ? post_forward<float>(xo_TMD, x_TMD, y_TD, post_TM, comb_TMM)
                             : post_forward<bf16>(xo_TMD, x_TMD, y_TD, post_TM, comb_TMM);
}

template <class T>
void post_backward(const View& dy_TD, const View& dx_TMD, const View& dpost_TM, const View& dcomb_TMM,
                   const View& dxo_TMD, const View& x_TMD, const View& y_TD, const View& post_TM,
                   const View& comb_TMM) {
  const auto kernel = TEMPER_BEST_ISA(hc_post_backward_rows<T>);
  parallel_for(y_TD.dim(0), kGrainTokens, [&](int64_t begin, int64_t end, int) {
    kernel(begin, end, y_TD.dim(1), dy_TD.data<T>(), dx_TMD.data<float>(), dpost_TM.data<float>(),
           dcomb_TMM.data<float>(), dxo_TMD.data<float>(), x_TMD.data<T>(), y_TD.data<T>(), post_TM.data<float>(),
           comb_TMM.data<float>());
  });
}

void hc_post_backward(Stream* stream, Out dy_TD, Out dx_TMD, Out dpost_TM, Out dcomb_TMM, In dxo_TMD, In x_TMD, In y_TD,
                      In post_TM, In comb_TMM) {
  if (!has_kernel(x_TMD))
    return cpu_reference().ops.hc_post_backward(stream, dy_TD, dx_TMD, dpost_TM, dcomb_TMM, dxo_TMD, x_TMD, y_TD,
                                                post_TM, comb_TMM);
  const auto run = x_TMD.dtype == DType::kF32 ? post_backward<float> : post_backward<bf16>;
  run(dy_TD, dx_TMD, dpost_TM, dcomb_TMM, dxo_TMD, x_TMD, y_TD, post_TM, comb_TMM);
}

void hc_coefficients_forward(Stream* stream, Out pre_TM, Out post_TM, Out comb_TMM, Out mix_TY, Out rstd_T, In x_TMD,
                             In fn_YB, In base_Y, In scale_G, int64_t sinkhorn_iters, double rms_eps, double hc_eps) {
  if (!has_kernel(x_TMD))
    return cpu_reference().ops.hc_coefficients_forward(stream, pre_TM, post_TM, comb_TMM, mix_TY, rstd_T, x_TMD, fn_YB,
                                                       base_Y, scale_G, sinkhorn_iters, rms_eps, hc_eps);
  const int64_t outputs = fn_YB.dim(0), width = fn_YB.dim(1);
  float* panel = call_floats(panels_size(width, outputs));
  const auto pack = TEMPER_BEST_ISA(hc_pack_fn_columns);
  parallel_for(width, 1024,
               [&](int64_t begin, int64_t end, int) { pack(begin, end, panel, fn_YB.data<float>(), outputs, width); });
  const HyperCoefficients operands{.pre = pre_TM.data<float>(),
                                   .post = data_or_null(post_TM),
                                   .comb = data_or_null(comb_TMM),
                                   .mix = mix_TY.data<float>(),
                                   .rstd = rstd_T.data<float>(),
                                   .x = x_TMD.raw(),
                                   .fn_panels = panel,
                                   .base = base_Y.data<float>(),
                                   .scale = scale_G.data<float>(),
                                   .width = width,
                                   .outputs = outputs,
                                   .sinkhorn_iters = sinkhorn_iters,
                                   .rms_eps = static_cast<float>(rms_eps),
                                   .hc_eps = static_cast<float>(hc_eps)};
  const auto kernel = x_TMD.dtype == DType::kF32 ? TEMPER_BEST_ISA(hc_coefficients_forward_rows<float>)
                                                 : TEMPER_BEST_ISA(hc_coefficients_forward_rows<bf16>);
  parallel_for(x_TMD.dim(0), kGrainTokens, [&](int64_t begin, int64_t end, int) { kernel(begin, end, operands); });
}

// to_i += sum over slices s of slices[s * stride + i], slices in ascending order.
void add_slices(float* to, const float* slices, int64_t stride, int64_t count, int num_slices) {
  parallel_for(count, 4096, [&](int64_t begin, int64_t end, int) {
    for (int s = 0; s < num_slices; ++s) {
      const float* from = slices + s * stride;
      for (int64_t i = begin; i < end; ++i) to[i] += from[i];
    }
  });
}

void hc_coefficients_backward(Stream* stream, InOut dx_TMD, InOut dfn_YB, InOut dbase_Y, InOut dscale_G, In dpre_TM,
                              In dpost_TM, In dcomb_TMM, In x_TMD, In mix_TY, In rstd_T, In fn_YB, In base_Y,
                              In scale_G, int64_t sinkhorn_iters, double hc_eps) {
  if (!has_kernel(x_TMD))
    return cpu_reference().ops.hc_coefficients_backward(stream, dx_TMD, dfn_YB, dbase_Y, dscale_G, dpre_TM, dpost_TM,
                                                        dcomb_TMM, x_TMD, mix_TY, rstd_T, fn_YB, base_Y, scale_G,
                                                        sinkhorn_iters, hc_eps);
  const int64_t outputs = fn_YB.dim(0), width = fn_YB.dim(1), num_groups = scale_G.dim(0);
  constexpr int64_t kMaxGroups = 3;
  const bool trained = dfn_YB.defined();
  CHECK(dbase_Y.defined() == trained && dscale_G.defined() == trained, dbase_Y.to_string(), dscale_G.to_string());
  const int64_t fn_size = trained ? outputs * width : 0, slice = round_up(fn_size + outputs + kMaxGroups, 16);
  float* panels = call_floats(panels_size(outputs, width) + slice * num_threads());
  float* slices = panels + panels_size(outputs, width);
  TEMPER_BEST_ISA(hc_pack_fn_rows)(panels, fn_YB.data<float>(), outputs, width);
  const HyperGradients operands{.dx = dx_TMD.data<float>(),
                                .dpre = dpre_TM.data<float>(),
                                .dpost = data_or_null(dpost_TM),
                                .dcomb = data_or_null(dcomb_TMM),
                                .x = x_TMD.raw(),
                                .mix = mix_TY.data<float>(),
                                .rstd = rstd_T.data<float>(),
                                .fn_panels = panels,
                                .base = base_Y.data<float>(),
                                .scale = scale_G.data<float>(),
                                .width = width,
                                .outputs = outputs,
                                .sinkhorn_iters = sinkhorn_iters,
                                .hc_eps = static_cast<float>(hc_eps)};
  const auto kernel = x_TMD.dtype == DType::kF32 ? TEMPER_BEST_ISA(hc_coefficients_backward_rows<float>)
                                                 : TEMPER_BEST_ISA(hc_coefficients_backward_rows<bf16>);
  std::atomic<int> num_slices{0};
  parallel_for(x_TMD.dim(0), kGrainTokens, [&](int64_t begin, int64_t end, int thread) {
    float* mine = slices + thread * slice;
    std::fill_n(mine, slice, 0.0f);
    kernel(begin, end, operands, trained ? mine : nullptr, mine + fn_size, mine + fn_size + outputs);
    num_slices.fetch_add(1, std::memory_order_relaxed);
  });
  if (!trained) return;
  add_slices(dfn_YB.data<float>(), slices, slice, fn_size, num_slices);
  add_slices(dbase_Y.data<float>(), slices + fn_size, slice, outputs, num_slices);
  add_slices(dscale_G.data<float>(), slices + fn_size + outputs, slice, num_groups, num_slices);
}

}  // namespace

void register_hyper(OpTable& ops) {
  ops.hc_pre_forward = hc_pre_forward;
  ops.hc_pre_backward = hc_pre_backward;
  ops.hc_post_forward = hc_post_forward;
  ops.hc_post_backward = hc_post_backward;
  ops.hc_coefficients_forward = hc_coefficients_forward;
  ops.hc_coefficients_backward = hc_coefficients_backward;
}

}  // namespace temper::backend
