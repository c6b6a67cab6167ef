// The row kernels of rows.h, one source for every instruction level. Included last by rows_<level>.cc, after its
// `#pragma GCC target`; nothing here may call an inline function of a header above except those forced inline, since
// its one copy could then hold instructions that other machines lack. Loops are plain and made into vectors by the
// compiler.

namespace temper::backend {
namespace {

#define TEMPER_INLINE static inline __attribute__((always_inline))

TEMPER_INLINE float get(const float* x, int64_t i) { return x[i]; }
TEMPER_INLINE float get(const uint16_t* x, int64_t i) { return bf16_to_f32(x[i]); }
TEMPER_INLINE void put(float* y, int64_t i, float value) { y[i] = value; }
TEMPER_INLINE void put(uint16_t* y, int64_t i, float value) { y[i] = f32_to_bf16(value); }

// Calls body(typed pointer).
template <class Body>
TEMPER_INLINE void typed(Reals x, Body body) {
  if (x.is_bf16) {
    body(static_cast<uint16_t*>(x.data));
  } else {
    body(static_cast<float*>(x.data));
  }
}
template <class Body>
TEMPER_INLINE void typed(Reals x, Reals y, Body body) {
  typed(x, [&](auto* px) { typed(y, [&](auto* py) { body(px, py); }); });
}

// --- movement -------------------------------------------------------------------------------------------------------

void copy(Reals y, Reals x, int64_t count) {
  typed(y, x, [&](auto* to, const auto* from) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) put(to, i, get(from, i));
  });
}

void add(Reals y, Reals x, float alpha, int64_t count) {
  typed(y, x, [&](auto* to, const auto* from) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) put(to, i, get(to, i) + alpha * get(from, i));
  });
}

void combine(Reals y, Reals x, const int32_t* x_rows, int64_t K, Reals base, int64_t D) {
  constexpr int64_t kChunk = 256;  // sums of a chunk stay in the nearest cache
  float sum[kChunk];
  for (int64_t first = 0; first < D; first += kChunk) {
    const int64_t count = D - first < kChunk ? D - first : kChunk;
    if (base.data != nullptr) {
      typed(base, [&](const auto* from) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) sum[i] = get(from, first + i);
      });
    } else {
      for (int64_t i = 0; i < count; ++i) sum[i] = 0;
    }
    typed(x, [&](const auto* from) {
      for (int64_t k = 0; k < K; ++k) {
        const auto* row = from + x_rows[k] * D + first;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) sum[i] += get(row, i);
      }
    });
    typed(y, [&](auto* to) {
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) put(to, first + i, sum[i]);
    });
  }
}

// --- norms, rotation, gates -----------------------------------------------------------------------------------------

void rmsnorm_forward(Reals y, float* rstd, Reals x, int64_t x_stride, const float* w, int64_t rows, int64_t D,
                     float eps) {
  typed(y, x, [&](auto* to, const auto* from) {
    for (int64_t r = 0; r < rows; ++r, to += D, from += x_stride) {
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t d = 0; d < D; ++d) sum += get(from, d) * get(from, d);
      const float scale = 1 / __builtin_sqrtf(sum / static_cast<float>(D) + eps);
      rstd[r] = scale;
      if (w != nullptr) {
#pragma omp simd
        for (int64_t d = 0; d < D; ++d) put(to, d, w[d] * get(from, d) * scale);
      } else {
#pragma omp simd
        for (int64_t d = 0; d < D; ++d) put(to, d, get(from, d) * scale);
      }
    }
  });
}

// One row; kWeighted: w and dw_part are there.
template <bool kWeighted, class DX, class DY, class X>
TEMPER_INLINE void rmsnorm_backward_row(DX* dx, float* dw_part, const DY* dy, const X* x, float rstd, const float* w,
                                        int64_t D) {
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t d = 0; d < D; ++d) dot += (kWeighted ? w[d] : 1.0F) * get(dy, d) * get(x, d);
  const float mean = dot * rstd / static_cast<float>(D);
#pragma omp simd
  for (int64_t d = 0; d < D; ++d) {
    const float g = get(dy, d), xh = get(x, d) * rstd;
    if (kWeighted) dw_part[d] += g * xh;
    put(dx, d, rstd * ((kWeighted ? w[d] : 1.0F) * g - xh * mean));
  }
}

void rmsnorm_backward(Reals dx, float* dw_part, Reals dy, Reals x, int64_t x_stride, const float* rstd, const float* w,
                      int64_t rows, int64_t D) {
  if (dw_part != nullptr) {
    for (int64_t d = 0; d < D; ++d) dw_part[d] = 0;
  }
  typed(dx, dy, [&](auto* to, const auto* from) {
    typed(x, [&](const auto* in) {
      for (int64_t r = 0; r < rows; ++r) {
        if (w != nullptr) {
          rmsnorm_backward_row<true>(to + r * D, dw_part, from + r * D, in + r * x_stride, rstd[r], w, D);
        } else {
          rmsnorm_backward_row<false>(to + r * D, dw_part, from + r * D, in + r * x_stride, rstd[r], w, D);
        }
      }
    });
  });
}

void rope(Reals y, int64_t y_stride, Reals x, int64_t x_stride, const float* cos_sin, float sign, int64_t heads,
          int64_t H, int64_t P) {
  // Channel i of a pair becomes x_i cos + x_{i xor 1} (-+ s sin): the factors are spread once per token.
  constexpr int64_t kMaxChannels = 256;
  float cosine[kMaxChannels], sine[kMaxChannels], pairs[kMaxChannels], swapped[kMaxChannels];
  for (int64_t first = 0; first < 2 * P; first += kMaxChannels) {
    const int64_t count = 2 * P - first < kMaxChannels ? 2 * P - first : kMaxChannels;
    for (int64_t i = 0; i < count; i += 2) {
      cosine[i] = cosine[i + 1] = cos_sin[first + i];
      sine[i + 1] = sign * cos_sin[first + i + 1];
      sine[i] = -sine[i + 1];
    }
    typed(y, x, [&](auto* to, const auto* from) {
      for (int64_t n = 0; n < heads; ++n) {
        auto* rotated = to + n * y_stride + H - 2 * P + first;
        const auto* in = from + n * x_stride + H - 2 * P + first;
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) pairs[i] = get(in, i);
        for (int64_t i = 0; i < count; i += 2) {
          uint64_t pair;
          __builtin_memcpy(&pair, pairs + i, sizeof pair);
          pair = pair << 32 | pair >> 32;
          __builtin_memcpy(swapped + i, &pair, sizeof pair);
        }
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) put(rotated, i, pairs[i] * cosine[i] + swapped[i] * sine[i]);
      }
    });
  }
  for (int64_t n = 0; n < heads; ++n) copy(y.at(n * y_stride), x.at(n * x_stride), H - 2 * P);
}

TEMPER_INLINE float clamp_above(float x, float limit) { return x > limit ? limit : x; }
TEMPER_INLINE float clamp_both(float x, float limit) { return x > limit ? limit : (x < -limit ? -limit : x); }

void swiglu_forward(Reals a, Reals gu, const float* w, int64_t rows, int64_t F, float limit) {
  typed(a, gu, [&](auto* to, const auto* from) {
    for (int64_t r = 0; r < rows; ++r, to += F, from += 2 * F) {
      const float weight = w != nullptr ? w[r] : 1.0F;
#pragma omp simd
      for (int64_t f = 0; f < F; ++f) {
        const float g = clamp_above(get(from, f), limit), u = clamp_both(get(from, F + f), limit);
        put(to, f, weight * g * vector_sigmoid(g) * u);
      }
    }
  });
}

void swiglu_backward(Reals dgu, float* dw, Reals a, Reals da, Reals gu, const float* w, int64_t rows, int64_t F,
                     float limit) {
  // All four matrices have the dtype of gu.
  typed(gu, [&](auto* gate) {
    auto* dgate = static_cast<decltype(gate)>(dgu.data);
    auto* act = static_cast<decltype(gate)>(a.data);
    auto* dact = static_cast<decltype(gate)>(da.data);
    for (int64_t r = 0; r < rows; ++r, gate += 2 * F, dgate += 2 * F, act += F, dact += F) {
      const float weight = w != nullptr ? w[r] : 1.0F;
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t f = 0; f < F; ++f) {
        const float g0 = get(gate, f), u0 = get(gate, F + f), d = get(dact, f);
        const float g = clamp_above(g0, limit), u = clamp_both(u0, limit);
        const float s = vector_sigmoid(g), silu = g * s;
        dot += d * silu * u;
        put(act, f, weight * silu * u);
        put(dgate, f, g0 <= limit ? weight * d * u * s * (1.0F + g * (1.0F - s)) : 0.0F);
        put(dgate, F + f, -limit <= u0 && u0 <= limit ? weight * d * silu : 0.0F);
      }
      if (dw != nullptr) dw[r] = dot;
    }
  });
}

// --- loss -----------------------------------------------------------------------------------------------------------

float log_sum_exp(const float* logits, int64_t V, int64_t* best) {
  constexpr int64_t kBlock = 512;
  float largest = logits[0];
  int64_t block = 0;  // the first block that holds the largest element
  for (int64_t first = 0; first < V; first += kBlock) {
    const int64_t end = V - first < kBlock ? V : first + kBlock;
    float most = logits[first];
#pragma omp simd reduction(max : most)
    for (int64_t v = first; v < end; ++v) most = logits[v] > most ? logits[v] : most;
    if (most > largest) {
      largest = most;
      block = first;
    }
  }
  *best = block;
  while (*best + 1 < V && logits[*best] < largest) ++*best;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < V; ++v) sum += vector_exp(logits[v] - largest);
  return largest + __builtin_logf(sum);
}

void softmax_backward(Reals dlogits, const float* logits, float lse, float g, int64_t V) {
  typed(dlogits, [&](auto* to) {
#pragma omp simd
    for (int64_t v = 0; v < V; ++v) put(to, v, -g * vector_exp(logits[v] - lse));
  });
}

// --- optimizer ------------------------------------------------------------------------------------------------------

double sum_squares(const float* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

void adamw(float* master, float* m, float* v, Reals value, const float* grad, const AdamwFactors& by, int64_t count) {
  const AdamwFactors f = by;
  typed(value, [&](auto* to) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const float g = f.grad_scale * grad[i];
      const float mean = f.beta1 * m[i] + (1.0F - f.beta1) * g;
      const float square = f.beta2 * v[i] + (1.0F - f.beta2) * g * g;
      const float step = f.rate * mean / (__builtin_sqrtf(square) * f.inverse_correction + f.eps);
      const float w = f.keep * master[i] - (square == 0.0F ? 0.0F : step);
      m[i] = mean;
      v[i] = square;
      master[i] = w;
      put(to, i, w);
    }
  });
}

#undef TEMPER_INLINE

constexpr RowKernels kRowKernels{
    copy,    add,         rmsnorm_forward,  rmsnorm_backward, rope, swiglu_forward, swiglu_backward,
    combine, log_sum_exp, softmax_backward, sum_squares,      adamw};

}  // namespace
}  // namespace temper::backend
