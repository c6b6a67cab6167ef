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

HyperSite site_of(const View& x_TMD, const View& fn_YB, const View& base_Y, const View& scale_G, int64_t sinkhorn_iters,
                  double hc_eps) {
  const HyperSite site{.x = x_TMD.raw(),
                       .fn = fn_YB.data<float>(),
                       .base = base_Y.data<float>(),
                       .scale = scale_G.data<float>(),
                       .tokens = x_TMD.dim(0),
                       .dim = x_TMD.dim(2),
                       .outputs = fn_YB.dim(0),
                       .sinkhorn_iters = sinkhorn_iters,
                       .hc_eps = static_cast<float>(hc_eps)};
  CHECK(site.outputs == (2 + kNumStreams) * kNumStreams || site.outputs == kNumStreams, site.outputs);
  CHECK(sinkhorn_iters >= 1, sinkhorn_iters);
  return site;
}
int64_t num_blocks(const HyperSite& site) { return (site.tokens + kHyperBlock - 1) / kHyperBlock; }

void hc_pre_forward(Stream* stream, Out u_TD, Out post_TM, Out comb_TMM, Out mix_TY, Out rstd_T, In x_TMD, In fn_YB,
                    In base_Y, In scale_G, int64_t sinkhorn_iters, double rms_eps, double hc_eps) {
  if (!has_kernel(x_TMD))
    return cpu_reference().ops.hc_pre_forward(stream, u_TD, post_TM, comb_TMM, mix_TY, rstd_T, x_TMD, fn_YB, base_Y,
                                              scale_G, sinkhorn_iters, rms_eps, hc_eps);
  const HyperForward operands{.site = site_of(x_TMD, fn_YB, base_Y, scale_G, sinkhorn_iters, hc_eps),
                              .u = u_TD.raw(),
                              .post = data_or_null(post_TM),
                              .comb = data_or_null(comb_TMM),
                              .mix = mix_TY.data<float>(),
                              .rstd = rstd_T.data<float>(),
                              .rms_eps = static_cast<float>(rms_eps)};
  const auto kernel = x_TMD.dtype == DType::kF32 ? TEMPER_BEST_ISA(hc_pre_forward_blocks<float>)
                                                 : TEMPER_BEST_ISA(hc_pre_forward_blocks<bf16>);
  parallel_for(num_blocks(operands.site), 1, [&](int64_t begin, int64_t end, int) { kernel(begin, end, operands); });
}

// dbase_y += sum over blocks of sums [block, y], dscale_g += the same of what lies behind those, in order.
void add_sums(const View& dbase_Y, const View& dscale_G, const float* sums, int64_t blocks) {
  constexpr int64_t kScales = (2 + kNumStreams) * kNumStreams;  // first of the sums of scale
  float total[kHyperSums] = {};
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t i = 0; i < kHyperSums; ++i) total[i] += sums[b * kHyperSums + i];
  }
  for (int64_t y = 0; y < dbase_Y.dim(0); ++y) dbase_Y.data<float>()[y] += total[y];
  for (int64_t g = 0; g < dscale_G.dim(0); ++g) dscale_G.data<float>()[g] += total[kScales + g];
}

// Tokens are shared among threads for dx, columns of fn for dfn: no sum depends on the number of threads.
void hc_pre_backward(Stream* stream, InOut dx_TMD, InOut dfn_YB, InOut dbase_Y, InOut dscale_G, In du_TD, In dpost_TM,
                     In dcomb_TMM, In x_TMD, In mix_TY, In rstd_T, In fn_YB, In base_Y, In scale_G,
                     int64_t sinkhorn_iters, double hc_eps) {
  if (!has_kernel(x_TMD))
    return cpu_reference().ops.hc_pre_backward(stream, dx_TMD, dfn_YB, dbase_Y, dscale_G, du_TD, dpost_TM, dcomb_TMM,
                                               x_TMD, mix_TY, rstd_T, fn_YB, base_Y, scale_G, sinkhorn_iters, hc_eps);
  const bool trained = dfn_YB.defined();
  CHECK(dbase_Y.defined() == trained && dscale_G.defined() == trained, dbase_Y.to_string(), dscale_G.to_string());
  const HyperSite site = site_of(x_TMD, fn_YB, base_Y, scale_G, sinkhorn_iters, hc_eps);
  const int64_t blocks = num_blocks(site), panels = kNumStreams * round_up(site.dim, kPanel) * site.outputs;
  float* scratch = call_floats(panels + blocks * (site.outputs * kHyperBlock + kHyperSums));
  const HyperBackward operands{.site = site,
                               .dx = dx_TMD.data<float>(),
                               .dfn = data_or_null(dfn_YB),
                               .du = du_TD.data<float>(),
                               .dpost = data_or_null(dpost_TM),
                               .dcomb = data_or_null(dcomb_TMM),
                               .mix = mix_TY.data<float>(),
                               .rstd = rstd_T.data<float>(),
                               .fn_panels = scratch,
                               .weight = scratch + panels,
                               .sums = scratch + panels + blocks * site.outputs * kHyperBlock};
  TEMPER_BEST_ISA(hc_pack_fn)(operands.fn_panels, site);
  const bool wide = x_TMD.dtype == DType::kF32;
  const auto kernel =
      wide ? TEMPER_BEST_ISA(hc_pre_backward_blocks<float>) : TEMPER_BEST_ISA(hc_pre_backward_blocks<bf16>);
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end, int) { kernel(begin, end, operands); });
  if (!trained) return;
  const auto of_fn = wide ? TEMPER_BEST_ISA(hc_fn_gradient_tiles<float>) : TEMPER_BEST_ISA(hc_fn_gradient_tiles<bf16>);
  parallel_for(TEMPER_BEST_ISA(hc_fn_gradient_num_tiles)(site), 1,
               [&](int64_t begin, int64_t end, int) { of_fn(begin, end, operands); });
  add_sums(dbase_Y, dscale_G, operands.sums, blocks);
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

}  // namespace

void register_hyper(OpTable& ops) {
  ops.hc_pre_forward = hc_pre_forward;
  ops.hc_pre_backward = hc_pre_backward;
  ops.hc_post_forward = hc_post_forward;
  ops.hc_post_backward = hc_post_backward;
}

}  // namespace temper::backend
