#include "backend/op_case.h"

#include <gtest/gtest.h>

#include <cstring>

#include "backend/cpu/reference.h"

namespace temper::backend::test {
namespace {

constexpr int64_t kGuardBytes = 256;
constexpr unsigned char kSentinel = 0xA5;
// What an output holds before the call: a NaN in every float dtype, so that an element that is read or left out shows.
constexpr unsigned char kPoison = 0xFF;

double rounded(Kind kind, double value) {
  return kind == Kind::kAct ? static_cast<double>(static_cast<float>(bf16(value)))
                            : static_cast<double>(static_cast<float>(value));
}

// An operand in device memory and its image on the host.
struct Placed {
  Placed(const Operand& operand, const Backend& backend, Stream* stream, Precision precision)
      : operand(operand), backend(backend) {
    const DType dtype = dtype_of(operand.kind, precision);
    const int64_t element = dtype_bytes(dtype);
    const int64_t used = kGuardBytes + element + operand.memory.size() * element + kGuardBytes;
    before.assign(static_cast<size_t>((used + 7) / 8 * 8), kSentinel);
    base = backend.device.alloc(static_cast<int64_t>(before.size()));
    device = window(View(base, dtype, operand.memory, kGuardBytes / element + 1));
    host = device;
    host.base = before.data();
    size_t next = 0;
    reference::with_dtype(host, [&](auto* to) {
      using T = std::remove_reference_t<decltype(*to)>;
      reference::for_each_offset(host, [&](int64_t i) {
        if (operand.values.empty())
          std::memset(to + i, kPoison, sizeof(T));
        else
          to[i] = reference::convert<T>(operand.values.at(next++));
      });
    });
    backend.device.copy_to_device(stream, bytes(), before.data());
  }
  Placed(const Placed&) = delete;
  ~Placed() { backend.device.free(base, static_cast<int64_t>(before.size())); }

  View window(const View& whole) const { return operand.window ? operand.window(whole) : whole; }
  View bytes() const { return View(base, DType::kI64, {static_cast<int64_t>(before.size()) / 8}); }

  // The elements after the call; everything else must be as it was.
  std::vector<double> collect(Stream* stream) {
    std::vector<unsigned char> after(before.size());
    backend.device.copy_to_host(stream, after.data(), bytes());
    host.base = after.data();
    std::vector<double> values;
    if (operand.role == Role::kIn) {
      EXPECT_EQ(before, after) << operand.name << " is an input and was written";
    }
    reference::with_dtype(host, [&](auto* from) {
      using T = std::remove_reference_t<decltype(*from)>;
      View original = host;
      original.base = before.data();
      const T* old = original.data<T>();
      reference::for_each_offset(host, [&](int64_t i) {
        values.push_back(static_cast<double>(from[i]));
        std::memcpy(static_cast<void*>(from + i), old + i, sizeof(T));
      });
    });
    EXPECT_EQ(before, after) << operand.name << " was written outside its view";
    return values;
  }

  const Operand& operand;
  const Backend& backend;
  std::vector<unsigned char> before;
  void* base;
  View device, host;
};

}  // namespace

DType dtype_of(Kind kind, Precision precision) {
  switch (kind) {
    case Kind::kAct:
      return layers::act_dtype(precision);
    case Kind::kAcc:
      return layers::acc_dtype(precision);
    case Kind::kF64:
      return DType::kF64;
    case Kind::kI32:
      return DType::kI32;
    case Kind::kI64:
      return DType::kI64;
  }
  return DType::kNone;
}

int OpCase::add(Operand operand) {
  operands.push_back(std::move(operand));
  return static_cast<int>(operands.size()) - 1;
}

std::vector<double> OpCase::draw(Kind kind, int64_t count, double scale) {
  std::vector<double> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(rounded(kind, scale * random_.normal(static_cast<uint64_t>(op), drawn_++)));
  return values;
}

double OpCase::uniform() { return random_.uniform(static_cast<uint64_t>(op), drawn_++); }

namespace {
int64_t view_size(const Shape& memory, const Window& window) {
  return window ? window(View(nullptr, DType::kF32, memory)).size() : memory.size();
}
}  // namespace

int OpCase::in(std::string name, Kind kind, Shape shape, double scale, Window window) {
  auto values = draw(kind, view_size(shape, window), scale);
  return add({std::move(name), kind, Role::kIn, shape, std::move(window), std::move(values)});
}

int OpCase::in(std::string name, Kind kind, Shape shape, std::vector<double> values, Window window) {
  CHECK(static_cast<int64_t>(values.size()) == view_size(shape, window), name, values.size(), shape.to_string());
  return add({std::move(name), kind, Role::kIn, shape, std::move(window), std::move(values)});
}

int OpCase::inout(std::string name, Kind kind, Shape shape, double scale, Window window) {
  auto values = draw(kind, view_size(shape, window), scale);
  return add({std::move(name), kind, Role::kInOut, shape, std::move(window), std::move(values)});
}

int OpCase::inout(std::string name, Kind kind, Shape shape, std::vector<double> values) {
  CHECK(static_cast<int64_t>(values.size()) == shape.size(), name, values.size(), shape.to_string());
  return add({std::move(name), kind, Role::kInOut, shape, {}, std::move(values)});
}

int OpCase::out(std::string name, Kind kind, Shape shape, Window window) {
  return add({std::move(name), kind, Role::kOut, shape, std::move(window), {}});
}

int OpCase::scratch(std::string name, Kind kind, Shape shape) {
  return add({std::move(name), kind, Role::kScratch, shape, {}, {}});
}

std::vector<std::vector<double>> run_case(const OpCase& op_case, const Backend& backend, Precision precision) {
  Stream* stream = backend.device.stream_create();
  std::vector<std::unique_ptr<Placed>> placed;
  Views views;
  for (const Operand& operand : op_case.operands) {
    placed.push_back(std::make_unique<Placed>(operand, backend, stream, precision));
    views.push_back(placed.back()->device);
  }
  op_case.call(backend.ops, stream, views);
  backend.device.stream_sync(stream);
  std::vector<std::vector<double>> results;
  for (const auto& operand : placed) results.push_back(operand->collect(stream));
  backend.device.stream_destroy(stream);
  return results;
}

}  // namespace temper::backend::test
