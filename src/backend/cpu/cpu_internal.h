// What the files of this folder share. Nothing outside src/backend/cpu includes it.
#pragma once

#include <cstdint>

#include "backend/device.h"
#include "backend/ops.h"

namespace temper::backend {

// Each overrides entries of a table that starts as the scalar reference with fast kernels for f32 and bf16 operands.
void register_products(OpTable& ops);   // products*.cc: matmul, grouped_matmul, grouped_matmul_dw
void register_rows(OpTable& ops);       // rows*.cc: movement, norms, rotation, gates, embedding, loss, optimizer
void register_hyper(OpTable& ops);      // hyper*.cc: hc_*
void register_attention(OpTable& ops);  // attention*.cc: attention_*
void register_compress(OpTable& ops);   // compress.cc: compress_*
void register_indexer(OpTable& ops);    // indexer*.cc: index_topk, indexer_loss
void register_moe(OpTable& ops);        // moe*.cc: router_*, dispatch_plan, combine

// The CPU as a device (device.cc): host memory, work done on return.
DeviceTable cpu_device();

}  // namespace temper::backend
