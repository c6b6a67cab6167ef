#include <cmath>

#include "backend/op_case.h"

namespace temper::backend::test {
namespace {

// Row indices in [-1, T), with -1 among them.
std::vector<double> indices(OpCase& c, int64_t count, int64_t T) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(i % 5 == 3 ? -1 : std::floor(c.uniform() * static_cast<double>(T)));
  return out;
}

void add_copies(std::vector<OpCase>& cases) {
  for (const Kind kind : {Kind::kAct, Kind::kAcc, Kind::kI32, Kind::kI64}) {
    OpCase c(OpId::fill, "5 x 37, middle columns");
    const int y = c.out("y", kind, {5, 50}, [](const View& v) { return v.slice(1, 7, 44); });
    c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.fill(s, v[y], 3); };
    cases.push_back(c);
  }
  const std::pair<Kind, Kind> pairs[] = {
      {Kind::kAct, Kind::kAct}, {Kind::kAcc, Kind::kAct}, {Kind::kAct, Kind::kAcc}, {Kind::kI32, Kind::kI32}};
  for (const auto& [to, from] : pairs)
    for (const bool strided : {false, true}) {
      OpCase c(OpId::copy, strided ? "transposed" : "contiguous, 70001 elements");
      const Shape shape = strided ? Shape{3, 37, 21} : Shape{7, 10003, 1};
      const Window window = strided ? Window([](const View& v) { return v.transpose(0, 2); }) : Window{};
      const int y = c.out("y", to, strided ? Shape{21, 37, 3} : shape);
      const int x = from == Kind::kI32 ? c.in("x", from, shape, indices(c, shape.size(), 1 << 20), window)
                                       : c.in("x", from, shape, 1, window);
      c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.copy(s, v[y], v[x]); };
      cases.push_back(c);
    }
}

void add_sums(std::vector<OpCase>& cases) {
  for (const Kind to : {Kind::kAct, Kind::kAcc})
    for (const Kind from : {Kind::kAct, Kind::kAcc})
      for (const int64_t size : {1, 37, 70001}) {
        OpCase c(OpId::add, std::to_string(size) + " elements");
        const int y = c.inout("y", to, {size}, 1), x = c.in("x", from, {size}, 1);
        c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.add(s, v[y], v[x], -0.75); };
        cases.push_back(c);
      }
}

void add_rows_by_index(std::vector<OpCase>& cases) {
  for (const auto& [T, R, D] : {std::tuple<int64_t, int64_t, int64_t>{5, 9, 3}, {40, 900, 129}, {6, 0, 8}})
    for (const Kind kind : {Kind::kAct, Kind::kAcc}) {
      const std::string label = fmt::format("T {}, R {}, D {}", T, R, D);
      const int64_t columns = D;
      {
        OpCase c(OpId::gather_rows, label + ", strided rows");
        const int y = c.out("y", kind, {R, D});
        const int x = c.in("x", kind, {T, D + 5}, 1, [=](const View& v) { return v.slice(1, 2, 2 + columns); });
        const int index = c.in("index", Kind::kI32, {R}, indices(c, R, T));
        c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.gather_rows(s, v[y], v[x], v[index]); };
        cases.push_back(c);
      }
      {
        OpCase c(OpId::scatter_rows, label + ", the last of equal indices wins");
        const int y = c.inout("y", kind, {T, D}, 1), x = c.in("x", kind, {R, D}, 1);
        const int index = c.in("index", Kind::kI32, {R}, indices(c, R, T));
        c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.scatter_rows(s, v[y], v[x], v[index]); };
        cases.push_back(c);
      }
      for (const Kind from : {Kind::kAct, Kind::kAcc}) {
        OpCase c(OpId::scatter_add_rows, label);
        const int y = c.inout("y", kind, {T, D}, 1), x = c.in("x", from, {R, D}, 1);
        const int index = c.in("index", Kind::kI32, {R}, indices(c, R, T));
        c.call = [=](const OpTable& ops, Stream* s, const Views& v) { ops.scatter_add_rows(s, v[y], v[x], v[index]); };
        cases.push_back(c);
      }
    }
}

}  // namespace

void add_movement_cases(std::vector<OpCase>& cases) {
  add_copies(cases);
  add_sums(cases);
  add_rows_by_index(cases);
}

}  // namespace temper::backend::test
