#include <cmath>

#include "backend/op_case.h"
#include "backend/packed_rows.h"

namespace temper::backend::test {
namespace {

using Lengths = std::vector<int64_t>;

void add_compress(std::vector<OpCase>& cases, const Lengths& lengths, int64_t rate, int64_t H, bool overlap, Kind grad,
                  bool trained = true) {
  const PackedRows rows = pack_rows(lengths, 8, rate);
  const int64_t T = rows.T(), C = rows.C(), Z = overlap ? 2 * H : H;
  const std::string label = fmt::format("{} tokens, rate {}, H {}{}", T, rate, H, overlap ? ", overlapping" : "");
  {
    OpCase c(OpId::compress_forward, label);
    const int out = c.out("v", Kind::kAct, {C, H}), z = c.in("z", Kind::kAcc, {T, Z}, 1),
              g = c.in("g", Kind::kAcc, {T, Z}, 2);
    const int ape = c.in("ape", Kind::kAcc, {rate, Z}, 1), row = c.in("row", Kind::kI32, {C}, rows.row_C);
    const int prev = c.in("prev_row", Kind::kI32, {C}, rows.prev_row_C);
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
      ops.compress_forward(s, v[out], v[z], v[g], v[ape], {v[row], overlap ? v[prev] : View(), rate});
    };
    cases.push_back(c);
  }
  OpCase c(OpId::compress_backward, label);
  const int dz = c.out("dz", grad, {T, Z}), dg = c.out("dg", grad, {T, Z}),
            dape = c.inout("dape", Kind::kAcc, {rate, Z}, 1);  // as it was, if it is not passed
  const int dv = c.in("dv", Kind::kAcc, {C, H}, 1), z = c.in("z", Kind::kAcc, {T, Z}, 1),
            g = c.in("g", Kind::kAcc, {T, Z}, 2);
  const int ape = c.in("ape", Kind::kAcc, {rate, Z}, 1), row = c.in("row", Kind::kI32, {C}, rows.row_C);
  const int prev = c.in("prev_row", Kind::kI32, {C}, rows.prev_row_C);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.compress_backward(s, v[dz], v[dg], trained ? v[dape] : View(), v[dv], v[z], v[g], v[ape],
                          {v[row], overlap ? v[prev] : View(), rate});
  };
  cases.push_back(c);
}

// With `ties` all values are small integers: scores are exact in every dtype, many are equal, the lower index must win.
void add_index(std::vector<OpCase>& cases, const Lengths& lengths, int64_t rate, int64_t I, int64_t P, int64_t A,
               bool ties) {
  const PackedRows rows = pack_rows(lengths, 8, rate);
  const int64_t T = rows.T(), C = rows.C();
  OpCase c(OpId::index_topk,
           fmt::format("{} tokens, {} entries, {} x {}, best {}{}", T, C, I, P, A, ties ? ", ties" : ""));
  const auto values = [&](Kind kind, int64_t count) {
    auto out = c.draw(kind, count, 1);
    if (ties)
      for (double& value : out) value = std::round(value);
    return out;
  };
  const int selected = c.out("selected", Kind::kI32, {T, A}),
            q = c.in("q", Kind::kAct, {T, I, P}, values(Kind::kAct, T * I * P));
  const int k = c.in("k", Kind::kAct, {C, P}, values(Kind::kAct, C * P)),
            w = c.in("w", Kind::kAcc, {T, I}, values(Kind::kAcc, T * I));
  const int begin = c.in("entry_begin", Kind::kI32, {T}, rows.entry_begin_T),
            count = c.in("entry_count", Kind::kI32, {T}, rows.entry_count_T);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.index_topk(s, v[selected], v[q], v[k], v[w], v[begin], v[count], 0.125);
  };
  cases.push_back(c);
}

// Scores that mislead whoever judges them by 8 panels of 32 entries, spread evenly: there alone lie high ones, fewer
// than are wanted, or there alone lie low ones.
void add_misleading_index(std::vector<OpCase>& cases, bool high) {
  PackedRows rows = pack_rows({6000}, 8, 2);
  for (auto* of_queries : {&rows.entry_begin_T, &rows.entry_count_T})
    of_queries->erase(of_queries->begin(), of_queries->end() - 3);
  const int64_t T = 3, C = rows.C(), A = 100, panels = (C - 1) / 32;
  std::vector<double> keys;
  for (int64_t e = 0; e < C; ++e) {
    bool looked_at = false;
    for (int64_t i = 0; i < 8; ++i) looked_at |= e / 32 == panels * i / 8;
    const auto value = static_cast<double>(e % 4);
    keys.push_back(!high ? (looked_at ? 0 : value + 1) : (looked_at && e % 4 == 0 ? 5 : value));
  }
  OpCase c(OpId::index_topk, fmt::format("{} entries, misleadingly {}, best {}", C, high ? "high" : "low", A));
  const int selected = c.out("selected", Kind::kI32, {T, A});
  const int q = c.in("q", Kind::kAct, {T, 1, 1}, std::vector<double>(3, 1)), k = c.in("k", Kind::kAct, {C, 1}, keys);
  const int w = c.in("w", Kind::kAcc, {T, 1}, std::vector<double>(3, 1));
  const int begin = c.in("entry_begin", Kind::kI32, {T}, rows.entry_begin_T),
            count = c.in("entry_count", Kind::kI32, {T}, rows.entry_count_T);
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.index_topk(s, v[selected], v[q], v[k], v[w], v[begin], v[count], 0.125);
  };
  cases.push_back(c);
}

enum class Entries { kNone, kAll, kSelected };

// `most` of the visible entries of each query, ascending, then -1; queries in turn choose all they can, some, and none.
std::vector<double> choose(OpCase& c, const PackedRows& rows, int64_t most) {
  std::vector<double> out;
  for (int64_t t = 0; t < rows.T(); ++t) {
    std::vector<double> chosen;
    for (double e = 0; e < rows.entry_count_T[static_cast<size_t>(t)]; ++e)
      if (t % 4 != 3 && (t % 4 == 0 || c.uniform() < 0.6) && static_cast<int64_t>(chosen.size()) < most)
        chosen.push_back(e);
    chosen.resize(static_cast<size_t>(most), -1);
    out.insert(out.end(), chosen.begin(), chosen.end());
  }
  return out;
}

struct AttentionCase {
  Lengths lengths;
  int64_t window, rate, N, H, most;
  Entries entries;
  bool trained = true;  // dsink is passed
  const char* name() const {
    return entries == Entries::kNone ? "window only" : entries == Entries::kAll ? "all entries" : "selected";
  }
};

// Operands that forward and backward share.
struct Shared {
  int q, c, k = -1, sink, key_begin, key_end, entry_begin = -1, entry_count = -1, selected = -1;
  KeyRanges ranges(const Views& v) const {
    const auto optional = [&](int i) { return i < 0 ? View() : v[static_cast<size_t>(i)]; };
    return {v[static_cast<size_t>(key_begin)],
            v[static_cast<size_t>(key_end)],
            optional(entry_begin),
            optional(entry_count),
            optional(selected),
            0};
  }
  View keys(const Views& v) const { return k < 0 ? View() : v[static_cast<size_t>(k)]; }
};

Shared add_shared(OpCase& c, const AttentionCase& a, const PackedRows& rows) {
  const int64_t T = rows.T();
  Shared s;
  s.q = c.in("q", Kind::kAct, {T, a.N, a.H}, 1.5);
  s.c = c.in("c", Kind::kAct, {T, a.H}, 1);
  s.sink = c.in("sink", Kind::kAcc, {a.N}, 1);
  s.key_begin = c.in("key_begin", Kind::kI32, {T}, rows.key_begin_T);
  s.key_end = c.in("key_end", Kind::kI32, {T}, rows.key_end_T);
  if (a.entries == Entries::kNone) return s;
  s.k = c.in("k", Kind::kAct, {rows.C(), a.H}, 1);
  s.entry_begin = c.in("entry_begin", Kind::kI32, {T}, rows.entry_begin_T);
  s.entry_count = c.in("entry_count", Kind::kI32, {T}, rows.entry_count_T);
  if (a.entries == Entries::kSelected) s.selected = c.in("selected", Kind::kI32, {T, a.most}, choose(c, rows, a.most));
  return s;
}

void add_attention(std::vector<OpCase>& cases, const AttentionCase& a) {
  const PackedRows rows = pack_rows(a.lengths, a.window, a.rate);
  const int64_t T = rows.T(), C = a.entries == Entries::kNone ? 0 : rows.C();
  const double scale = 1 / std::sqrt(static_cast<double>(a.H));
  const std::string label = fmt::format("{} x {} x {}, window {}, {} entries, {}", T, a.N, a.H, a.window, C, a.name());

  OpCase f(OpId::attention_forward, label);
  const int f_o = f.out("o", Kind::kAct, {T, a.N, a.H}), f_lse = f.out("lse", Kind::kAcc, {T, a.N});
  const Shared fs = add_shared(f, a, rows);
  f.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.attention_forward(s, v[f_o], v[f_lse], v[fs.q], v[fs.c], fs.keys(v), v[fs.sink], fs.ranges(v), scale);
  };
  cases.push_back(f);

  // o and lse of the very operands of the backward case, rounded as a forward would have stored them.
  OpCase b(OpId::attention_backward, label);
  const Shared bs = add_shared(b, a, rows);
  OpCase own_forward = b;
  own_forward.op = OpId::attention_forward;
  const int o_out = own_forward.out("o", Kind::kAct, {T, a.N, a.H}),
            lse_out = own_forward.out("lse", Kind::kAcc, {T, a.N});
  own_forward.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.attention_forward(s, v[o_out], v[lse_out], v[bs.q], v[bs.c], bs.keys(v), v[bs.sink], bs.ranges(v), scale);
  };
  auto forward = run_case(own_forward, cpu_reference(), Precision::kFp64);
  for (double& x : forward[static_cast<size_t>(o_out)]) x = static_cast<float>(bf16(x));
  for (double& x : forward[static_cast<size_t>(lse_out)]) x = static_cast<float>(x);
  const int o = b.in("o", Kind::kAct, {T, a.N, a.H}, forward[static_cast<size_t>(o_out)]);
  const int lse = b.in("lse", Kind::kAcc, {T, a.N}, forward[static_cast<size_t>(lse_out)]);
  const int dout = b.in("do", Kind::kAct, {T, a.N, a.H}, 1), dq = b.out("dq", Kind::kAct, {T, a.N, a.H});
  const int dc = b.out("dc", Kind::kAcc, {T, a.H}), dk = C ? b.out("dk", Kind::kAcc, {C, a.H}) : -1;
  const int dsink = b.inout("dsink", Kind::kAcc, {a.N}, 1);
  const int workspace = b.scratch("workspace", Kind::kAcc, {cpu().device.info().num_threads, T + C, a.H});
  b.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    ops.attention_backward(s, v[dq], v[dc], dk < 0 ? View() : v[static_cast<size_t>(dk)], a.trained ? v[dsink] : View(),
                           v[dout], v[o], v[lse], v[bs.q], v[bs.c], bs.keys(v), v[bs.sink], bs.ranges(v), scale,
                           v[workspace]);
  };
  cases.push_back(b);
}

// Teacher and pupil draw apart: their distributions differ, as at the start of a warm-up. lse lies where the softmax of
// exp(`shift`) times more mass outside the entries would put it.
void add_indexer_loss(std::vector<OpCase>& cases, const PackedRows& rows, const AttentionCase& a, int64_t I, int64_t P,
                      double shift) {
  const int64_t T = rows.T(), C = rows.C();
  OpCase c(OpId::indexer_loss, fmt::format("{} tokens, {} entries, {} x {}, teacher {} x {}, {}, lse + {}", T, C, I, P,
                                           a.N, a.H, a.name(), shift));
  const int loss = c.inout("loss", Kind::kAcc, {1}, 1), dq = c.out("dq", Kind::kAct, {T, I, P});
  const int dk = c.out("dk", Kind::kAcc, {C, P}), dw = c.out("dw", Kind::kAct, {T, I});
  const int q = c.in("q", Kind::kAct, {T, I, P}, 1), k = c.in("k", Kind::kAct, {C, P}, 1);
  const int w = c.in("w", Kind::kAcc, {T, I}, 1);
  auto lse_values = c.draw(Kind::kAcc, T * a.N, 1);
  for (double& value : lse_values) value = static_cast<float>(value + shift);
  const int query = c.in("query", Kind::kAct, {T, a.N, a.H}, 1.5), entry = c.in("entry", Kind::kAct, {C, a.H}, 1);
  const int lse = c.in("lse", Kind::kAcc, {T, a.N}, lse_values);
  const int begin = c.in("entry_begin", Kind::kI32, {T}, rows.entry_begin_T),
            count = c.in("entry_count", Kind::kI32, {T}, rows.entry_count_T);
  const bool chosen = a.entries == Entries::kSelected;
  const int selected = chosen ? c.in("selected", Kind::kI32, {T, a.most}, choose(c, rows, a.most)) : -1;
  const int workspace = c.scratch("workspace", Kind::kAcc, {cpu().device.info().num_threads, C, P});
  const double attention_scale = 1 / std::sqrt(static_cast<double>(a.H)),
               index_scale = 1 / std::sqrt(static_cast<double>(I * P));
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
    const KeyRanges ranges{{}, {}, v[begin], v[count], chosen ? v[static_cast<size_t>(selected)] : View(), 0};
    ops.indexer_loss(s, v[loss], v[dq], v[dk], v[dw], v[q], v[k], v[w], v[query], v[entry], v[lse], ranges,
                     attention_scale, index_scale, 0.5, v[workspace]);
  };
  cases.push_back(c);
}

}  // namespace

void add_attention_cases(std::vector<OpCase>& cases) {
  for (const Kind grad : {Kind::kAct, Kind::kAcc}) {
    add_compress(cases, {9, 3, 14}, 4, 5, true, grad);
    add_compress(cases, {9, 3, 14}, 4, 5, false, grad);
    add_compress(cases, {130, 71}, 4, 72, true, grad);
    add_compress(cases, {100, 70}, 16, 40, false, grad);
  }
  add_compress(cases, {3, 2}, 4, 8, true, Kind::kAct);  // no entry at all
  add_compress(cases, {40, 30}, 4, 24, true, Kind::kAct, false);
  for (const bool ties : {false, true}) {
    add_index(cases, {29, 2, 17}, 4, 3, 10, 3, ties);
    add_index(cases, {150, 90}, 4, 4, 32, 8, ties);
    add_index(cases, {61}, 2, 2, 17, 40, ties);  // fewer entries than places
    add_index(cases, {900}, 2, 2, 6, 5, ties);   // many more entries than places
    add_index(cases, {800}, 2, 3, 4, 150, ties);
  }
  for (const bool high : {false, true}) add_misleading_index(cases, high);
  for (const Entries entries : {Entries::kNone, Entries::kAll, Entries::kSelected}) {
    add_attention(cases, {{7, 1, 5}, 3, 2, 3, 6, 2, entries});
    add_attention(cases, {{50, 33}, 16, 4, 4, 33, 5, entries});
    add_attention(cases, {{120, 9}, 32, 8, 8, 64, 7, entries});
    add_attention(cases, {{21, 9}, 8, 4, 3, 16, 3, entries, false});
    add_attention(cases, {{420}, 16, 2, 2, 6, 40, entries});   // selections are masked, then gathered
    add_attention(cases, {{420}, 70, 2, 2, 6, 150, entries});  // more than one block of keys
    add_attention(cases, {{130, 9}, 16, 2, 3, 48, 5, entries});
  }
  for (const Entries entries : {Entries::kAll, Entries::kSelected}) {
    const auto add = [&](const AttentionCase& a, int64_t I, int64_t P, double shift) {
      add_indexer_loss(cases, pack_rows(a.lengths, a.window, a.rate), a, I, P, shift);
    };
    add({{9, 3, 14}, 8, 4, 3, 7, 2, entries}, 3, 5, 2);
    add({{150, 90}, 8, 4, 4, 32, 8, entries}, 4, 16, 4);
    add({{130, 2}, 8, 2, 9, 40, 40, entries}, 20, 24, 100);
    add({{900}, 8, 4, 2, 16, 200, entries}, 2, 8, 3);
    // The last queries of a long document: more products than a kernel may care to keep.
    PackedRows late = pack_rows({2230}, 8, 2);
    for (auto* of_queries : {&late.key_begin_T, &late.entry_begin_T, &late.entry_count_T})
      of_queries->erase(of_queries->begin(), of_queries->end() - 6);
    add_indexer_loss(cases, late, {{}, 8, 2, 2, 4, 1090, entries}, 64, 2, 3);
  }
}

}  // namespace temper::backend::test
