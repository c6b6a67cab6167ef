// Times single ops of the CPU backend against this machine's measured limits: a line per case.
//
//   ops [--filter TEXT] [--seconds S] [--peer]
//
// Every case is repeated for S seconds (default 0.3) and its best time counts, since a busy neighbour only ever slows a
// call. --peer adds oneDNN's time for plain products, where this build has found that library.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "backend/cpu/limits.h"
#include "backend/registry.h"
#include "base/clock.h"
#include "base/thread.h"
#ifdef TEMPER_PEER_ONEDNN
#include "peer_onednn.h"
#endif

namespace temper {
namespace {

using backend::OpTable;

struct Options {
  std::string filter;
  double seconds = 0.3;
  bool peer = false;
};

// Tensors of one case; freed with it.
class Tensors {
 public:
  ~Tensors() {
    for (void* base : bases_) std::free(base);
  }
  // Random values in (-1, 1), for i32 in [0, below).
  View make(DType dtype, Shape shape, int64_t below = 1) {
    void* base =
        std::aligned_alloc(4096, static_cast<size_t>((shape.size() * dtype_bytes(dtype) + 8191) / 4096 * 4096));
    bases_.push_back(base);
    View view(base, dtype, shape);
    for (int64_t i = 0; i < shape.size(); ++i) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      const double u = static_cast<double>(state_ >> 33) * 0x1p-31;
      if (dtype == DType::kF32) view.data<float>()[i] = static_cast<float>(2 * u - 1);
      if (dtype == DType::kBF16) view.data<bf16>()[i] = bf16(2 * u - 1);
      if (dtype == DType::kI32) view.data<int32_t>()[i] = static_cast<int32_t>(u * static_cast<double>(below));
    }
    return view;
  }

 private:
  std::vector<void*> bases_;
  uint64_t state_ = 1;
};

class Bench {
 public:
  explicit Bench(Options options) : options_(std::move(options)), limits_(backend::measure_limits(0.5)) {
    fmt::print("{}\nlimits: bf16 {:.0f} GFLOP/s, f32 {:.0f} GFLOP/s, memory {:.1f} GB/s\n\n",
               backend::cpu().device.info().name, limits_.bf16_flops * 1e-9, limits_.f32_flops * 1e-9,
               limits_.memory_bytes_per_second * 1e-9);
    fmt::print("{:<44} {:>9} {:>9} {:>8} {:>6} {:>6}\n", "case", "ms", "GFLOP/s", "GB/s", "%peak", "%mem");
  }

  const Options& options() const { return options_; }
  bool wants(const std::string& name) const { return name.find(options_.filter) != std::string::npos; }

  // Best seconds of one call.
  double time(const std::function<void()>& call) const {
    call();
    const double start = now_seconds();
    double best = 1e30, begin = start;
    int calls = 1;
    while (begin - start < options_.seconds) {
      for (int i = 0; i < calls; ++i) call();
      const double each = (now_seconds() - begin) / calls;
      best = std::min(best, each);
      calls = static_cast<int>(std::clamp(1e-4 / each, 1.0, 1000.0));
      begin = now_seconds();
    }
    return best;
  }

  void line(const std::string& name, DType dtype, double seconds, double flops, double bytes) const {
    const double peak = dtype == DType::kBF16 ? limits_.bf16_flops : limits_.f32_flops;
    fmt::print("{:<44} {:>9.4f} {:>9.1f} {:>8.1f} {:>6.1f} {:>6.1f}\n", name, seconds * 1e3, flops / seconds * 1e-9,
               bytes / seconds * 1e-9, 100 * flops / seconds / peak,
               100 * bytes / seconds / limits_.memory_bytes_per_second);
    std::fflush(stdout);
  }

  // A case of an op: `bytes` is what it must read and write once.
  void run(const std::string& name, DType dtype, double flops, double bytes, const std::function<void()>& call) const {
    if (wants(name)) line(name, dtype, time(call), flops, bytes);
  }

 private:
  Options options_;
  backend::MachineLimits limits_;
};

double bytes_of(std::initializer_list<View> views) {
  double bytes = 0;
  for (const View& view : views) bytes += static_cast<double>(view.num_bytes());
  return bytes;
}

// The three products of a linear layer y = x W^T of T tokens, K inputs, N outputs.
void bench_linear(const Bench& bench, const OpTable& ops, DType act, int64_t T, int64_t N, int64_t K) {
  const std::string shape = fmt::format("{} {}x{}x{}", dtype_name(act), T, N, K);
  if (!bench.wants("matmul " + shape + " forward dx dw")) return;
  Tensors tensors;
  const View x_TK = tensors.make(act, {T, K}), w_NK = tensors.make(act, {N, K}), y_TN = tensors.make(act, {T, N});
  const View dw_NK = tensors.make(DType::kF32, {N, K});
  const double flops = 2.0 * static_cast<double>(T) * static_cast<double>(N) * static_cast<double>(K);
  const auto product = [&](const char* what, const View& c, const View& a, const View& b, double beta) {
    const std::string name = fmt::format("matmul {} {}", shape, what);
    bench.run(name, act, flops, bytes_of({c, a, b}), [&] { ops.matmul(nullptr, c, a, b, beta); });
#ifdef TEMPER_PEER_ONEDNN
    if (bench.options().peer && bench.wants(name)) {
      const auto peer = onednn_matmul(c, a, b, beta);
      bench.run(name + " oneDNN", act, flops, bytes_of({c, a, b}), peer);
    }
#endif
  };
  product("forward", y_TN, x_TK, w_NK.t(), 0);
  product("dx", x_TK, y_TN, w_NK, 0);
  product("dw", dw_NK, y_TN.t(), x_TK, 1);
}

// Products of E experts with `rows` rows each.
void bench_experts(const Bench& bench, const OpTable& ops, DType act, int64_t E, int64_t rows, int64_t N, int64_t K) {
  Tensors tensors;
  const int64_t R = E * rows;
  const View x_RK = tensors.make(act, {R, K}), w_ENK = tensors.make(act, {E, N, K}), y_RN = tensors.make(act, {R, N});
  const View dw_ENK = tensors.make(DType::kF32, {E, N, K}), offset_E1 = tensors.make(DType::kI32, {E + 1});
  for (int64_t e = 0; e <= E; ++e) offset_E1.data<int32_t>()[e] = static_cast<int32_t>(e * rows);
  const double flops = 2.0 * static_cast<double>(R) * static_cast<double>(N) * static_cast<double>(K);
  const std::string shape = fmt::format("experts {} {}x{}x{}x{}", dtype_name(act), E, rows, N, K);
  bench.run(shape + " forward", act, flops, bytes_of({y_RN, x_RK, w_ENK}),
            [&] { ops.grouped_matmul(nullptr, y_RN, x_RK, w_ENK.t(), offset_E1); });
  bench.run(shape + " dx", act, flops, bytes_of({y_RN, x_RK, w_ENK}),
            [&] { ops.grouped_matmul(nullptr, x_RK, y_RN, w_ENK, offset_E1); });
  bench.run(shape + " dw", act, flops, bytes_of({y_RN, x_RK, dw_ENK}),
            [&] { ops.grouped_matmul_dw(nullptr, dw_ENK, y_RN, x_RK, offset_E1, 1); });
}

void bench_rows(const Bench& bench, const OpTable& ops, DType act, int64_t T, int64_t D) {
  Tensors tensors;
  const View x_TD = tensors.make(act, {T, D}), y_TD = tensors.make(act, {T, D}), gu_TG = tensors.make(act, {T, 2 * D});
  const View dgu_TG = tensors.make(act, {T, 2 * D}), acc_TD = tensors.make(DType::kF32, {T, D});
  const View w_D = tensors.make(DType::kF32, {D}), dw_D = tensors.make(DType::kF32, {D});
  const View rstd_T = tensors.make(DType::kF32, {T}), w_T = tensors.make(DType::kF32, {T});
  const View index_T = tensors.make(DType::kI32, {T}, T), position_T = tensors.make(DType::kI32, {T}, 4096);
  const View slot_TK = tensors.make(DType::kI32, {T, 4}, T), token_T = tensors.make(DType::kI32, {T}, 8192);
  const View cos_sin_LP2 = tensors.make(DType::kF32, {4096, 16, 2});
  const View table_VD = tensors.make(DType::kF32, {8192, D});
  const auto name = [&](const char* op) { return fmt::format("{} {} {}x{}", op, dtype_name(act), T, D); };
  const auto run = [&](const char* op, std::initializer_list<View> views, const std::function<void()>& call) {
    bench.run(name(op), act, 0, bytes_of(views), call);
  };
  run("fill", {y_TD}, [&] { ops.fill(nullptr, y_TD, 0); });
  run("copy", {y_TD, acc_TD}, [&] { ops.copy(nullptr, y_TD, acc_TD); });
  run("add", {acc_TD, acc_TD, x_TD}, [&] { ops.add(nullptr, acc_TD, x_TD, 1e-6); });
  run("gather_rows", {y_TD, x_TD}, [&] { ops.gather_rows(nullptr, y_TD, x_TD, index_T); });
  run("scatter_add_rows", {acc_TD, acc_TD, x_TD}, [&] { ops.scatter_add_rows(nullptr, acc_TD, x_TD, index_T); });
  run("rmsnorm_forward", {y_TD, x_TD}, [&] { ops.rmsnorm_forward(nullptr, y_TD, rstd_T, x_TD, w_D, 1e-6); });
  run("rmsnorm_backward", {y_TD, x_TD, acc_TD},
      [&] { ops.rmsnorm_backward(nullptr, y_TD, dw_D, acc_TD, x_TD, rstd_T, w_D); });
  const Shape heads{T, D / 64, 64};
  run("rope", {y_TD, x_TD},
      [&] { ops.rope(nullptr, y_TD.reshape(heads), x_TD.reshape(heads), cos_sin_LP2, position_T, 1); });
  run("swiglu_forward", {y_TD, gu_TG}, [&] { ops.swiglu_forward(nullptr, y_TD, gu_TG, w_T, 10); });
  run("swiglu_backward", {dgu_TG, y_TD, x_TD, gu_TG},
      [&] { ops.swiglu_backward(nullptr, dgu_TG, rstd_T, y_TD, x_TD, gu_TG, w_T, 10); });
  run("combine", {y_TD, x_TD, x_TD, x_TD, x_TD, x_TD}, [&] { ops.combine(nullptr, y_TD, x_TD, slot_TK, x_TD); });
  const Shape streams{T, 1, D};
  run("embedding_backward", {acc_TD, acc_TD, acc_TD},
      [&] { ops.embedding_backward(nullptr, table_VD, acc_TD.reshape(streams), token_T); });
}

// A CSA layer's sizes for one document of T tokens.
struct SparseSizes {
  int64_t T, rate, window, N, H, I, P, A;
};

struct SparseOperands {
  SparseOperands(Tensors& tensors, DType act, const SparseSizes& z) : sizes(z) {
    const DType acc = DType::kF32;
    const int64_t C = z.T / z.rate, threads = backend::cpu().device.info().num_threads;
    const auto index = [&](int64_t size, const std::function<int64_t(int64_t)>& value) {
      const View view = tensors.make(DType::kI32, {size});
      for (int64_t i = 0; i < size; ++i) view.data<int32_t>()[i] = static_cast<int32_t>(value(i));
      return view;
    };
    window.key_begin_T = index(z.T, [&](int64_t t) { return std::max<int64_t>(0, t + 1 - z.window); });
    window.key_end_T = index(z.T, [](int64_t t) { return t + 1; });
    all = window;
    all.entry_begin_T = index(z.T, [](int64_t) { return 0; });
    all.entry_count_T = index(z.T, [&](int64_t t) { return (t + 1) / z.rate; });
    chosen = all;
    chosen.selected_TA = tensors.make(DType::kI32, {z.T, z.A});
    pooled = {index(C, [&](int64_t e) { return e * z.rate; }), index(C, [&](int64_t e) { return (e - 1) * z.rate; }),
              z.rate};
    pooled.prev_row_C.data<int32_t>()[0] = -1;
    q_TIP = tensors.make(act, {z.T, z.I, z.P}), dq_TIP = tensors.make(act, {z.T, z.I, z.P});
    k_CP = tensors.make(act, {C, z.P}), dk_CP = tensors.make(acc, {C, z.P});
    w_TI = tensors.make(acc, {z.T, z.I}), dw_TI = tensors.make(act, {z.T, z.I}), loss_1 = tensors.make(acc, {1});
    q_TNH = tensors.make(act, {z.T, z.N, z.H}), dq_TNH = tensors.make(act, {z.T, z.N, z.H});
    o_TNH = tensors.make(act, {z.T, z.N, z.H}), do_TNH = tensors.make(act, {z.T, z.N, z.H});
    c_TH = tensors.make(act, {z.T, z.H}), dc_TH = tensors.make(acc, {z.T, z.H});
    k_CH = tensors.make(act, {C, z.H}), dk_CH = tensors.make(acc, {C, z.H});
    sink_N = tensors.make(acc, {z.N}), lse_TN = tensors.make(acc, {z.T, z.N});
    z_TZ = tensors.make(acc, {z.T, 2 * z.H}), ape_mZ = tensors.make(acc, {z.rate, 2 * z.H});
    workspace = tensors.make(acc, {threads, z.T + C, std::max(z.H, z.P)});
  }

  void choose(const OpTable& ops) const {
    ops.index_topk(nullptr, chosen.selected_TA, q_TIP, k_CP, w_TI, all.entry_begin_T, all.entry_count_T, 0.1);
  }
  void attend(const OpTable& ops, const backend::KeyRanges& ranges) const {
    const View entries = ranges.entry_count_T.defined() ? k_CH : View();
    ops.attention_forward(nullptr, o_TNH, lse_TN, q_TNH, c_TH, entries, sink_N, ranges, 0.1);
  }
  void attend_backward(const OpTable& ops) const {
    ops.attention_backward(nullptr, dq_TNH, dc_TH, dk_CH, View(), do_TNH, o_TNH, lse_TN, q_TNH, c_TH, k_CH, sink_N,
                           chosen, 0.1, workspace);
  }
  void teach(const OpTable& ops, const backend::KeyRanges& ranges) const {
    ops.indexer_loss(nullptr, loss_1, dq_TIP, dk_CP, dw_TI, q_TIP, k_CP, w_TI, q_TNH, k_CH, lse_TN, ranges, 0.1, 0.1, 1,
                     workspace);
  }

  SparseSizes sizes;
  backend::KeyRanges window, all, chosen;
  backend::CompressRanges pooled;
  View q_TIP, dq_TIP, k_CP, dk_CP, w_TI, dw_TI, loss_1, q_TNH, dq_TNH, o_TNH, do_TNH, c_TH, dc_TH, k_CH, dk_CH, sink_N,
      lse_TN, z_TZ, ape_mZ, workspace;
};

// What a CSA layer does after its projections: entries, their choice, attention over the window, with all entries and
// with the chosen ones, and the loss of the indexer. FLOPs are of the products alone.
void bench_sparse(const Bench& bench, const OpTable& ops, DType act, const SparseSizes& z) {
  const std::string shape = fmt::format("{} {}", dtype_name(act), z.T);
  const auto wanted = [&](const char* op) { return bench.wants(op + (" " + shape)); };
  constexpr const char* kOps[] = {"compress_forward",          "index_topk",
                                  "attention_forward, window", "attention_forward, all entries",
                                  "attention_forward, chosen", "attention_backward, chosen",
                                  "indexer_loss, chosen",      "indexer_loss, all entries"};
  if (std::none_of(std::begin(kOps), std::end(kOps), wanted)) return;
  Tensors tensors;
  const SparseOperands o(tensors, act, z);
  double scored = 0, chosen = 0, window = 0;  // pairs of a query and an entry or a key of its window
  for (int64_t t = 0; t < z.T; ++t) {
    const int64_t count = (t + 1) / z.rate;
    scored += static_cast<double>(count > z.A ? count : 0);
    chosen += static_cast<double>(std::min(count, z.A));
    window += static_cast<double>(std::min(t + 1, z.window));
  }
  const double pair = static_cast<double>(z.N * z.H), index_pair = static_cast<double>(z.I * z.P);
  const auto run = [&](const std::string& op, double flops, const std::function<void()>& call) {
    bench.run(op + " " + shape, act, flops, 0, call);
  };
  run("compress_forward", 0, [&] { ops.compress_forward(nullptr, o.k_CH, o.z_TZ, o.z_TZ, o.ape_mZ, o.pooled); });
  o.choose(ops);
  run("index_topk", 2 * index_pair * scored, [&] { o.choose(ops); });
  run("attention_forward, window", 4 * pair * window, [&] { o.attend(ops, o.window); });
  run("attention_forward, all entries", 4 * pair * (window + scored), [&] { o.attend(ops, o.all); });
  o.attend(ops, o.chosen);
  run("attention_forward, chosen", 4 * pair * (window + chosen), [&] { o.attend(ops, o.chosen); });
  run("attention_backward, chosen", 10 * pair * (window + chosen), [&] { o.attend_backward(ops); });
  const double taught = 2 * pair + 6 * index_pair;
  run("indexer_loss, chosen", taught * chosen, [&] { o.teach(ops, o.chosen); });
  run("indexer_loss, all entries", taught * scored, [&] { o.teach(ops, o.all); });
}

// One site of hyper-connections with 4 streams of D channels.
void bench_hyper(const Bench& bench, const OpTable& ops, DType act, int64_t T, int64_t D) {
  const std::string shape = fmt::format("{} {}x4x{}", dtype_name(act), T, D);
  Tensors tensors;
  const int64_t M = 4, Y = 24;
  const auto acc = [&](Shape s) { return tensors.make(DType::kF32, s); };
  const View x_TMD = tensors.make(act, {T, M, D}), xo_TMD = tensors.make(act, {T, M, D}), dx_TMD = acc({T, M, D});
  const View y_TD = tensors.make(act, {T, D}), dy_TD = tensors.make(act, {T, D}), du_TD = acc({T, D});
  const View fn_YB = acc({Y, M * D}), dfn_YB = acc({Y, M * D}), base_Y = acc({Y}), dbase_Y = acc({Y});
  const View scale_G = acc({3}), dscale_G = acc({3}), mix_TY = acc({T, Y}), rstd_T = acc({T});
  const View post_TM = acc({T, M}), comb_TMM = acc({T, M, M}), dpost_TM = acc({T, M}), dcomb_TMM = acc({T, M, M});
  const double each = static_cast<double>(x_TMD.size());
  const auto run = [&](const char* op, double flops, std::initializer_list<View> views,
                       const std::function<void()>& call) {
    bench.run(fmt::format("{} {}", op, shape), DType::kF32, flops, bytes_of(views), call);
  };
  run("hc_pre_forward", 2 * each * Y, {x_TMD, y_TD}, [&] {
    ops.hc_pre_forward(nullptr, y_TD, post_TM, comb_TMM, mix_TY, rstd_T, x_TMD, fn_YB, base_Y, scale_G, 20, 1e-6, 1e-6);
  });
  run("hc_pre_backward", 4 * each * Y, {x_TMD, dx_TMD, dx_TMD, du_TD}, [&] {
    ops.hc_pre_backward(nullptr, dx_TMD, dfn_YB, dbase_Y, dscale_G, du_TD, dpost_TM, dcomb_TMM, x_TMD, mix_TY, rstd_T,
                        fn_YB, base_Y, scale_G, 20, 1e-6);
  });
  run("hc_post_forward", 10 * each, {x_TMD, xo_TMD, y_TD},
      [&] { ops.hc_post_forward(nullptr, xo_TMD, x_TMD, y_TD, post_TM, comb_TMM); });
  run("hc_post_backward", 20 * each, {dx_TMD, dx_TMD, x_TMD, y_TD, y_TD}, [&] {
    ops.hc_post_backward(nullptr, dy_TD, dx_TMD, dpost_TM, dcomb_TMM, dx_TMD, x_TMD, y_TD, post_TM, comb_TMM);
  });
}

void bench_loss(const Bench& bench, const OpTable& ops, int64_t T, int64_t V) {
  Tensors tensors;
  const View logits_TV = tensors.make(DType::kF32, {T, V}), dlogits_TV = tensors.make(DType::kBF16, {T, V});
  const View logp_T = tensors.make(DType::kF32, {T}), lse_T = tensors.make(DType::kF32, {T});
  const View best_T = tensors.make(DType::kI32, {T}), target_T = tensors.make(DType::kI32, {T}, V);
  bench.run(fmt::format("logprob_forward f32 {}x{}", T, V), DType::kF32, 0, bytes_of({logits_TV}),
            [&] { ops.logprob_forward(nullptr, logp_T, lse_T, best_T, logits_TV, target_T); });
  bench.run(fmt::format("logprob_backward bf16 {}x{}", T, V), DType::kF32, 0, bytes_of({logits_TV, dlogits_TV}),
            [&] { ops.logprob_backward(nullptr, dlogits_TV, logits_TV, lse_T, target_T, logp_T); });
}

void bench_optimizer(const Bench& bench, const OpTable& ops, int64_t count) {
  Tensors tensors;
  const Shape shape{count};
  const View w = tensors.make(DType::kF32, shape), m = tensors.make(DType::kF32, shape);
  const View v = tensors.make(DType::kF32, shape), g = tensors.make(DType::kF32, shape);
  const View value = tensors.make(DType::kBF16, shape), sum_1 = tensors.make(DType::kF64, {1});
  const View squares_2 = tensors.make(DType::kF32, {2});
  ops.fill(nullptr, v, 1);
  bench.run(fmt::format("sum_squares f32 {}", count), DType::kF32, 2.0 * static_cast<double>(count), bytes_of({g}),
            [&] { ops.sum_squares(nullptr, sum_1, g); });
  bench.run(fmt::format("adamw bf16 {}", count), DType::kF32, 19.0 * static_cast<double>(count),
            bytes_of({w, w, m, m, v, v, g, value}),
            [&] { ops.adamw(nullptr, w, m, v, value, squares_2, g, 1e-6, 0.9, 0.95, 1e-8, 0.1, 10, 1); });
}

void run_all(const Options& options) {
  const Bench bench(options);
  const OpTable& ops = backend::cpu().ops;
  bench.run("parallel_for (fork and join)", DType::kF32, 0, 0,
            [] { parallel_for(num_threads(), 1, [](int64_t, int64_t, int) {}); });
  for (DType act : {DType::kBF16, DType::kF32}) {
    for (int64_t n : {64, 128, 256, 512, 1024, 2048}) bench_linear(bench, ops, act, n, n, n);
    bench_linear(bench, ops, act, 2048, 128, 128);
    bench_linear(bench, ops, act, 4096, 512, 512);
    bench_linear(bench, ops, act, 4096, 2048, 512);
    bench_linear(bench, ops, act, 2048, 24, 512);
    bench_experts(bench, ops, act, 8, 256, 128, 128);
    bench_experts(bench, ops, act, 32, 16, 512, 512);
    bench_experts(bench, ops, act, 32, 64, 512, 512);
    bench_experts(bench, ops, act, 32, 256, 512, 512);
  }
  for (int64_t D : {128, 512}) {
    bench_rows(bench, ops, DType::kBF16, 4096, D);
    bench_rows(bench, ops, DType::kF32, 4096, D);
  }
  for (DType act : {DType::kBF16, DType::kF32}) {
    bench_sparse(bench, ops, act, {2048, 4, 128, 8, 64, 16, 32, 64});
    bench_sparse(bench, ops, act, {65536, 4, 128, 4, 32, 4, 16, 64});
  }
  for (DType act : {DType::kBF16, DType::kF32}) {
    bench_hyper(bench, ops, act, 4096, 128);
    bench_hyper(bench, ops, act, 2048, 512);
  }
  bench_loss(bench, ops, 1024, 512);
  bench_loss(bench, ops, 512, 8192);
  bench_optimizer(bench, ops, 16 << 20);
}

}  // namespace
}  // namespace temper

int main(int argc, char** argv) {
  temper::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--peer") {
      options.peer = true;
    } else if (argument == "--filter" && i + 1 < argc) {
      options.filter = argv[++i];
    } else if (argument == "--seconds" && i + 1 < argc) {
      options.seconds = std::atof(argv[++i]);
    } else {
      fmt::print(stderr, "usage: ops [--filter TEXT] [--seconds S] [--peer]\n");
      return 2;
    }
  }
  temper::run_all(options);
}
