#include "backend/cpu/cpu_internal.h"
#include "backend/cpu/reference.h"
#include "backend/registry.h"

namespace temper::backend {
namespace {

OpTable reference_ops() {
  OpTable ops;
  register_reference_movement(ops);
  register_reference_products(ops);
  register_reference_rows(ops);
  register_reference_hyper(ops);
  register_reference_attention(ops);
  register_reference_indexer(ops);
  register_reference_moe(ops);
  register_reference_optimizer(ops);
  return ops;
}

OpTable fast_ops() {
  OpTable ops = reference_ops();
  register_products(ops);
  register_rows(ops);
  register_hyper(ops);
  register_attention(ops);
  register_compress(ops);
  register_indexer(ops);
  register_moe(ops);
  return ops;
}

}  // namespace

const Backend& cpu_reference() {
  static const Backend backend{"cpu_reference", cpu_device(), reference_ops()};
  return backend;
}

const Backend& cpu() {
  static const Backend backend{"cpu", cpu_device(), fast_ops()};
  return backend;
}

}  // namespace temper::backend
