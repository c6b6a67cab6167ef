#include "backend/op_case.h"

namespace temper::backend::test {
namespace {

struct Layout {
  const char* name;
  bool a_transposed, b_transposed;
};
constexpr Layout kLayouts[] = {{"a b", false, false}, {"a bT", false, true}, {"aT b", true, false}};

// Memory and window of a matrix [batch,] rows x columns, stored transposed or not, `gap` elements between its stored
// rows.
Shape stored(int64_t batch, int64_t rows, int64_t columns, bool transposed, int64_t gap) {
  const int64_t r = transposed ? columns : rows, c = (transposed ? rows : columns) + gap;
  return batch ? Shape{batch, r, c} : Shape{r, c};
}
Window cut(bool transposed, int64_t gap) {
  return [=](const View& v) {
    const int last = v.rank() - 1;
    const View inner = v.slice(last, 0, v.dim(last) - gap);
    return transposed ? inner.t() : inner;
  };
}

void add_matmul(std::vector<OpCase>& cases, const Layout& layout, int64_t batch, int64_t M, int64_t N, int64_t K,
                Kind out, Kind in, double beta, int64_t gap) {
  OpCase c(OpId::matmul,
           fmt::format("{}, batch {}, {} x {} x {}, beta {}, gap {}", layout.name, batch, M, N, K, beta, gap));
  const Shape shape = stored(batch, M, N, false, gap);
  const int y = beta == 0 ? c.out("c", out, shape, cut(false, gap)) : c.inout("c", out, shape, 1, cut(false, gap));
  const int a = c.in("a", in, stored(batch, M, K, layout.a_transposed, gap), 1, cut(layout.a_transposed, gap));
  const int b = c.in("b", in, stored(batch, K, N, layout.b_transposed, gap), 1, cut(layout.b_transposed, gap));
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.matmul(s, v[y], v[a], v[b], beta); };
  cases.push_back(c);
}

// Groups of one stride apart inside a wider row: [T, G, x] seen as a batch of G matrices [T, x].
void add_grouped_columns(std::vector<OpCase>& cases) {
  const int64_t T = 13, G = 3, K = 20, N = 11;
  const Window by_group = [](const View& v) { return v.transpose(0, 1); };
  OpCase c(OpId::matmul, "batch of column groups");
  const int y = c.out("c", Kind::kAct, {T, G, N}, by_group), a = c.in("a", Kind::kAct, {T, G, K}, 1, by_group);
  const int b = c.in("b", Kind::kAct, {G, N, K}, 1, [](const View& v) { return v.t(); });
  c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.matmul(s, v[y], v[a], v[b], 0); };
  cases.push_back(c);
}

struct Grouped {
  int64_t N, K, R;
  std::vector<double> offset;  // E + 1
};

void add_grouped(std::vector<OpCase>& cases, const Grouped& g) {
  const int64_t E = static_cast<int64_t>(g.offset.size()) - 1, used = static_cast<int64_t>(g.offset.back());
  const std::string label = fmt::format("E {}, R {} of {}, N {}, K {}", E, used, g.R, g.N, g.K);
  for (const bool transposed : {false, true}) {
    OpCase c(OpId::grouped_matmul, label + (transposed ? ", bT" : ""));
    const int y = c.out("c", Kind::kAct, {g.R, g.N}), a = c.in("a", Kind::kAct, {g.R, g.K}, 1);
    c.operands[static_cast<size_t>(y)].compared_rows = used;
    const int b = transposed ? c.in("b", Kind::kAct, {E, g.N, g.K}, 1, [](const View& v) { return v.t(); })
                             : c.in("b", Kind::kAct, {E, g.K, g.N}, 1);
    const int offset = c.in("offset", Kind::kI32, {E + 1}, g.offset);
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.grouped_matmul(s, v[y], v[a], v[b], v[offset]); };
    cases.push_back(c);
  }
  for (const double beta : {0.0, 1.0}) {
    OpCase c(OpId::grouped_matmul_dw, fmt::format("{}, beta {}", label, beta));
    const int dw = c.inout("dw", Kind::kAcc, {E, g.N, g.K}, 1);
    const int dy = c.in("dy", Kind::kAct, {g.R, g.N}, 1), x = c.in("x", Kind::kAct, {g.R, g.K}, 1);
    const int offset = c.in("offset", Kind::kI32, {E + 1}, g.offset);
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) {
      ops.grouped_matmul_dw(s, v[dw], v[dy], v[x], v[offset], beta);
    };
    cases.push_back(c);
  }
}

}  // namespace

void add_product_cases(std::vector<OpCase>& cases) {
  for (const Layout& layout : kLayouts) {
    add_matmul(cases, layout, 0, 5, 7, 3, Kind::kAct, Kind::kAct, 0, 0);
    add_matmul(cases, layout, 0, 1, 33, 65, Kind::kAcc, Kind::kAct, 1, 0);
    add_matmul(cases, layout, 0, 67, 129, 100, Kind::kAcc, Kind::kAct, 1, 3);
    add_matmul(cases, layout, 0, 130, 96, 257, Kind::kAct, Kind::kAct, 0, 5);
    add_matmul(cases, layout, 0, 9, 24, 130, Kind::kAcc, Kind::kAcc, 0, 0);
    add_matmul(cases, layout, 3, 17, 20, 31, Kind::kAct, Kind::kAct, 0, 2);
    add_matmul(cases, layout, 2, 8, 16, 24, Kind::kAcc, Kind::kAct, 1, 0);
  }
  add_matmul(cases, kLayouts[1], 0, 260, 300, 280, Kind::kAct, Kind::kAct, 0, 0);
  add_grouped_columns(cases);
  add_grouped(cases, {6, 5, 11, {0, 3, 3, 7}});           // an expert without rows, rows behind the last
  add_grouped(cases, {33, 70, 64, {0, 16, 16, 17, 64}});  // one row, many rows
  add_grouped(cases, {48, 64, 200, {0, 0, 8, 40, 56, 56, 56, 120, 184}});  // padded to 8 rows
}

}  // namespace temper::backend::test
