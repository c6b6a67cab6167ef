// A parameter with memory of its own, for tests of the optimizer.
#pragma once

#include <memory>
#include <vector>

#include "backend/registry.h"
#include "layers/ctx.h"
#include "layers/parameter.h"

namespace temper::optim::testing {

class OneParameter {
 public:
  OneParameter(const backend::Backend& backend, DType acc, Shape shape, const std::string& name = "w") {
    p.name = name, p.shape = shape, p.dtype = acc;
    book_.declare(&p.value, TensorKind::kParameter, name, acc, shape);
    book_.declare(&p.grad, TensorKind::kGradient, name + ".grad", acc, shape);
    book_.declare(&p.m, TensorKind::kMoment, name + ".m", acc, shape);
    book_.declare(&p.v, TensorKind::kMoment, name + ".v", acc, shape);
    arena_ = std::make_unique<backend::Arena>(backend.device, book_);
    p.master = p.value;
  }
  layers::Parameter p;

 private:
  Book book_;
  std::unique_ptr<backend::Arena> arena_;
};

// fp32 or fp64 by acc; with its own stream.
class TestCtx {
 public:
  TestCtx(const backend::Backend& backend, DType acc)
      : ctx{backend.ops, backend.device, backend.device.stream_create(), acc, acc} {}
  TestCtx(const TestCtx&) = delete;
  TestCtx& operator=(const TestCtx&) = delete;
  ~TestCtx() { ctx.device.stream_destroy(ctx.stream); }
  layers::Ctx ctx;
};

}  // namespace temper::optim::testing
