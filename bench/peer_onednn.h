// oneDNN's matrix product on the operands of our op, as a peer to measure against. Its own threads are used.
#pragma once

#include <functional>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>

#include "tensor/view.h"

namespace temper {

inline dnnl::memory onednn_memory(const View& view, const dnnl::engine& engine) {
  const auto type = view.dtype == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  const dnnl::memory::desc desc({view.dim(0), view.dim(1)}, type, {view.strides[0], view.strides[1]});
  return dnnl::memory(desc, engine, view.raw());
}

// A call of c = a b + beta c; code generation is done here and not timed.
inline std::function<void()> onednn_matmul(const View& c, const View& a, const View& b, double beta) {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const auto c_memory = onednn_memory(c, engine), a_memory = onednn_memory(a, engine),
             b_memory = onednn_memory(b, engine);
  dnnl::primitive_attr attributes;
  if (beta == 1) {
    dnnl::post_ops post;
    post.append_sum(1.0F);
    attributes.set_post_ops(post);
  }
  const dnnl::matmul primitive(dnnl::matmul::primitive_desc(
      dnnl::matmul::desc(a_memory.get_desc(), b_memory.get_desc(), c_memory.get_desc()), attributes, engine));
  const std::unordered_map<int, dnnl::memory> arguments{
      {DNNL_ARG_SRC, a_memory}, {DNNL_ARG_WEIGHTS, b_memory}, {DNNL_ARG_DST, c_memory}};
  return [primitive, arguments, stream = dnnl::stream(engine)]() mutable {
    primitive.execute(stream, arguments);
    stream.wait();
  };
}

}  // namespace temper
