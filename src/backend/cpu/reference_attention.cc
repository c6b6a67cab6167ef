// Attention (architecture page 5, 12.C, 12.D): pooling of compressed entries, attention with a sink.
#include <algorithm>
#include <cmath>

#include "backend/cpu/reference.h"

namespace temper::backend {
namespace reference {
namespace {

// One slot of a window: which row and projection channel it reads for entry channel c, and which row of ape.
struct Slot {
  int64_t row, first_channel, ape_row;
};

// The slots of every entry of a compress call.
class Windows {
 public:
  // H = channels of an entry, Z = channels of z and g: H, or 2H when windows overlap.
  Windows(const CompressRanges& ranges, int64_t C, int64_t H, int64_t Z, int64_t T)
      : rate_(ranges.rate), H_(H), overlap_(Z == 2 * H), row_(load<int64_t>(ranges.row_C, {C})), prev_({C}, -1) {
    CHECK(rate_ > 0 && (Z == H || Z == 2 * H), rate_, Z, H);
    if (overlap_) prev_ = load<int64_t>(ranges.prev_row_C, {C});
    for (int64_t e = 0; e < C; ++e)
      CHECK(row_(e) >= 0 && row_(e) + rate_ <= T && prev_(e) >= -1 && prev_(e) + rate_ <= T, e, row_(e), prev_(e), T);
  }

  std::vector<Slot> slots(int64_t entry) const {
    std::vector<Slot> out;
    if (overlap_ && prev_(entry) >= 0)
      for (int64_t o = 0; o < rate_; ++o) out.push_back({prev_(entry) + o, 0, o});
    for (int64_t o = 0; o < rate_; ++o) out.push_back({row_(entry) + o, overlap_ ? H_ : 0, o});
    return out;
  }

 private:
  int64_t rate_, H_;
  bool overlap_;
  Array<int64_t> row_, prev_;
};

// Softmax over the slots of one channel of one entry.
template <class A>
std::vector<A> slot_weights(const std::vector<Slot>& slots, int64_t channel, const Array<A>& g, const Array<A>& ape) {
  std::vector<A> a;
  for (const Slot& s : slots) {
    const int64_t z_channel = s.first_channel + channel;
    a.push_back(g(s.row, z_channel) + ape(s.ape_row, z_channel));
  }
  const A largest = *std::max_element(a.begin(), a.end());
  A sum = 0;
  for (A& value : a) sum += value = std::exp(value - largest);
  for (A& value : a) value /= sum;
  return a;
}

template <class A>
void compress_forward(Out v_CH, In z_TZ, In g_TZ, In ape_mZ, CompressRanges ranges) {
  const int64_t C = v_CH.dim(0), H = v_CH.dim(1), T = z_TZ.dim(0), Z = z_TZ.dim(1);
  const auto z = load<A>(z_TZ, {T, Z}), g = load<A>(g_TZ, {T, Z}), ape = load<A>(ape_mZ, {ranges.rate, Z});
  const Windows windows(ranges, C, H, Z, T);
  Array<A> v({C, H});
  for (int64_t e = 0; e < C; ++e) {
    const auto slots = windows.slots(e);
    for (int64_t c = 0; c < H; ++c) {
      const auto a = slot_weights(slots, c, g, ape);
      for (size_t o = 0; o < slots.size(); ++o) v(e, c) += a[o] * z(slots[o].row, slots[o].first_channel + c);
    }
  }
  store(v_CH, v);
}

template <class A>
void compress_backward(Out dz_TZ, Out dg_TZ, InOut dape_mZ, In dv_CH, In z_TZ, In g_TZ, In ape_mZ,
                       CompressRanges ranges) {
  const int64_t C = dv_CH.dim(0), H = dv_CH.dim(1), T = z_TZ.dim(0), Z = z_TZ.dim(1), m = ranges.rate;
  const auto z = load<A>(z_TZ, {T, Z}), g = load<A>(g_TZ, {T, Z}), ape = load<A>(ape_mZ, {m, Z});
  const auto dv = load<A>(dv_CH, {C, H});
  const Windows windows(ranges, C, H, Z, T);
  Array<A> dz({T, Z}), dg({T, Z});
  auto dape = load_or<A>(dape_mZ, {m, Z}, 0);
  for (int64_t e = 0; e < C; ++e) {
    const auto slots = windows.slots(e);
    for (int64_t c = 0; c < H; ++c) {
      const auto a = slot_weights(slots, c, g, ape);
      A v = 0;
      for (size_t o = 0; o < slots.size(); ++o) v += a[o] * z(slots[o].row, slots[o].first_channel + c);
      for (size_t o = 0; o < slots.size(); ++o) {
        const int64_t row = slots[o].row, channel = slots[o].first_channel + c;
        const A dlogit = a[o] * dv(e, c) * (z(row, channel) - v);
        dz(row, channel) += a[o] * dv(e, c);
        dg(row, channel) += dlogit;
        dape(slots[o].ape_row, channel) += dlogit;
      }
    }
  }
  store(dz_TZ, dz);
  store(dg_TZ, dg);
  if (dape_mZ.defined()) store(dape_mZ, dape);
}

// The rows that each query sees, as indices into the concatenation of c_JH and k_CH.
class Visible {
 public:
  Visible(const KeyRanges& ranges, int64_t T, int64_t J, int64_t C)
      : J_(J),
        C_(C),
        key_begin_(load<int64_t>(ranges.key_begin_T, {T})),
        key_end_(load<int64_t>(ranges.key_end_T, {T})),
        entry_begin_(load_or<int64_t>(ranges.entry_begin_T, {T}, 0)),
        entry_count_(load_or<int64_t>(ranges.entry_count_T, {T}, 0)),
        all_(!ranges.selected_TA.defined()),
        selected_(load_or<int64_t>(ranges.selected_TA, {T, all_ ? 0 : ranges.selected_TA.dim(1)}, -1)) {}

  std::vector<int64_t> rows(int64_t t) const {
    CHECK(key_begin_(t) >= 0 && key_end_(t) <= J_, t, key_begin_(t), key_end_(t), J_);
    std::vector<int64_t> out;
    for (int64_t j = key_begin_(t); j < key_end_(t); ++j) out.push_back(j);
    const int64_t begin = entry_begin_(t), count = entry_count_(t);
    CHECK(count == 0 || (begin >= 0 && begin + count <= C_), t, begin, count, C_);
    if (all_)
      for (int64_t e = 0; e < count; ++e) out.push_back(J_ + begin + e);
    for (int64_t i = 0; i < selected_.dim(1); ++i) {
      if (selected_(t, i) == -1) continue;
      CHECK(selected_(t, i) >= 0 && selected_(t, i) < count, t, selected_(t, i), count);
      out.push_back(J_ + begin + selected_(t, i));
    }
    return out;
  }

 private:
  int64_t J_, C_;
  Array<int64_t> key_begin_, key_end_, entry_begin_, entry_count_;
  bool all_;
  Array<int64_t> selected_;
};

// c_JH and k_CH (which may be undefined) as one array [J + C, H].
template <class A>
Array<A> load_keys(In c_JH, In k_CH) {
  const int64_t J = c_JH.dim(0), C = k_CH.defined() ? k_CH.dim(0) : 0, H = c_JH.dim(1);
  const auto c = load<A>(c_JH, {J, H});
  const auto k = load_or<A>(k_CH, {C, H}, 0);
  Array<A> b({J + C, H});
  std::copy_n(c.data(), c.size(), b.data());
  std::copy_n(k.data(), k.size(), b.data() + c.size());
  return b;
}

template <class A>
A dot(const A* a, const A* b, int64_t size) {
  A sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

template <class A>
void attention_forward(Out o_TNH, Out lse_TN, In q_TNH, In c_JH, In k_CH, In sink_N, KeyRanges ranges, double scale) {
  const int64_t T = q_TNH.dim(0), N = q_TNH.dim(1), H = q_TNH.dim(2), J = c_JH.dim(0);
  const auto q = load<A>(q_TNH, {T, N, H}), sink = load<A>(sink_N, {N});
  const auto b = load_keys<A>(c_JH, k_CH);
  CHECK(b.dim(1) == H, b.dim(1), H);
  const Visible visible(ranges, T, J, b.dim(0) - J);
  Array<A> o({T, N, H}), lse({T, N});
  for (int64_t t = 0; t < T; ++t) {
    const auto rows = visible.rows(t);
    std::vector<A> l(rows.size());
    for (int64_t n = 0; n < N; ++n) {
      A largest = sink(n);
      for (size_t i = 0; i < rows.size(); ++i) {
        l[i] = static_cast<A>(scale) * dot(&q(t, n, 0), &b(rows[i], 0), H);
        largest = std::max(largest, l[i]);
      }
      A sum = std::exp(sink(n) - largest);
      for (const A logit : l) sum += std::exp(logit - largest);
      lse(t, n) = largest + std::log(sum);
      for (size_t i = 0; i < rows.size(); ++i)
        for (int64_t h = 0; h < H; ++h) o(t, n, h) += std::exp(l[i] - lse(t, n)) * b(rows[i], h);
    }
  }
  store(o_TNH, o);
  store(lse_TN, lse);
}

template <class A>
void attention_backward(Out dq_TNH, Out dc_JH, Out dk_CH, InOut dsink_N, In do_TNH, In o_TNH, In lse_TN, In q_TNH,
                        In c_JH, In k_CH, In sink_N, KeyRanges ranges, double scale_in, Out /*workspace*/) {
  const int64_t T = q_TNH.dim(0), N = q_TNH.dim(1), H = q_TNH.dim(2), J = c_JH.dim(0);
  CHECK(k_CH.defined() == dk_CH.defined(), k_CH.to_string(), dk_CH.to_string());
  const auto q = load<A>(q_TNH, {T, N, H}), dout = load<A>(do_TNH, {T, N, H}), o = load<A>(o_TNH, {T, N, H});
  const auto lse = load<A>(lse_TN, {T, N}), sink = load<A>(sink_N, {N});
  const auto b = load_keys<A>(c_JH, k_CH);
  const int64_t C = b.dim(0) - J;
  const A scale = static_cast<A>(scale_in);
  const Visible visible(ranges, T, J, C);
  Array<A> dq({T, N, H}), dc({J, H}), dk({C, H});
  auto dsink = load_or<A>(dsink_N, {N}, 0);
  for (int64_t t = 0; t < T; ++t) {
    const auto rows = visible.rows(t);
    for (int64_t n = 0; n < N; ++n) {
      const A delta = dot(&dout(t, n, 0), &o(t, n, 0), H);
      dsink(n) -= std::exp(sink(n) - lse(t, n)) * delta;
      for (const int64_t row : rows) {
        const A p = std::exp(scale * dot(&q(t, n, 0), &b(row, 0), H) - lse(t, n));
        const A dl = p * (dot(&dout(t, n, 0), &b(row, 0), H) - delta);
        A* db = row < J ? &dc(row, 0) : &dk(row - J, 0);
        for (int64_t h = 0; h < H; ++h) {
          dq(t, n, h) += scale * dl * b(row, h);
          db[h] += scale * dl * q(t, n, h) + p * dout(t, n, h);
        }
      }
    }
  }
  store(dq_TNH, dq);
  store(dc_JH, dc);
  if (dk_CH.defined()) store(dk_CH, dk);
  if (dsink_N.defined()) store(dsink_N, dsink);
}

}  // namespace
}  // namespace reference

void register_reference_attention(OpTable& ops) {
  using namespace reference;
  TEMPER_REFERENCE(ops, compress_forward);
  TEMPER_REFERENCE(ops, compress_backward);
  TEMPER_REFERENCE(ops, attention_forward);
  TEMPER_REFERENCE(ops, attention_backward);
}

}  // namespace temper::backend
