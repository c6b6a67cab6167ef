#include "train/session.h"

#include "base/error.h"

namespace temper::train {
namespace {

model::ModelOptions with_threads(model::ModelOptions options, const backend::Backend& backend) {
  options.num_threads = backend.device.info().num_threads;
  return options;
}

void refuse_if_too_large(const Book& book, const backend::DeviceInfo& info) {
  if (info.memory_bytes == 0 || book.total_bytes() <= info.memory_bytes) return;
  fail(ErrorCode::kOutOfMemory,
       "the run needs {} and {} has {} free. Lower train.tokens_per_micro_batch, set train.recompute = \"block\" or "
       "\"full\", set checkpoint.staging = false, or take a smaller model.\n{}",
       format_bytes(book.total_bytes()), info.name, format_bytes(info.memory_bytes), book.table());
}

}  // namespace

const backend::Backend& backend_for(layers::Precision precision) {
  return precision == layers::Precision::kFp64 ? backend::cpu_reference() : backend::cpu();
}

Session::Session(const backend::Backend& backend, model::Config config, model::ModelOptions options, StateMemory state)
    : ctx_{backend.ops, backend.device, nullptr, layers::act_dtype(options.precision),
           layers::acc_dtype(options.precision)},
      model_(std::move(config), with_threads(options, backend)),
      norm_meter_(model_.parameters()),
      update_meter_(model_.parameters()) {
  model_.declare(book_);
  if (options.train) norm_meter_.declare(book_), update_meter_.declare(book_, ctx_.acc);
  if (state != StateMemory::kNone) {
    state_tensors_.emplace(model_.parameters(), state == StateMemory::kStaged);
    state_tensors_->declare(book_);
  }
  refuse_if_too_large(book_, backend.device.info());
  arena_ = std::make_unique<backend::Arena>(backend.device, book_);
  ctx_.stream = backend.device.stream_create();
  model_.prepare(ctx_);
}

Session::~Session() { ctx_.device.stream_destroy(ctx_.stream); }

}  // namespace temper::train
