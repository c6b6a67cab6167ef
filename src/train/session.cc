#include "train/session.h"

#include "base/error.h"
#include "model/parameter_memory.h"

namespace temper::train {
namespace {

model::ModelOptions with_threads(model::ModelOptions options, const backend::Backend& backend) {
  options.num_threads = backend.device.info().num_threads;
  return options;
}

// The trained parameters of the model that all ranks hold together.
optim::WholeModel whole_model(const model::Model& part, const parallel::Ranks* ranks) {
  model::ModelOptions options = part.options();
  const optim::Pieces pieces = options.part.exact()       ? optim::Pieces::kAll
                               : options.part.ep_size > 1 ? optim::Pieces::kExperts
                                                          : optim::Pieces::kNone;
  options.part = {};
  optim::WholeModel whole = optim::WholeModel::of(model::Model(part.config(), options).parameters(), pieces);
  if (!ranks) return whole;
  whole.world = ranks->world;
  // Ranks that share a parameter own different pieces of it; where they do not, the first of them counts. The last
  // stage of a pipeline may have the embedding a second time.
  const bool is_first_stage = part.is_first_stage();
  whole.is_counted = [equal = ranks->equal(false), is_first_stage](const layers::Parameter& p) {
    if (!is_first_stage && p.name == "model.embed_tokens.weight") return false;
    return p.is_shared() || comm::group_rank(equal.of(p)) == 0;
  };
  return whole;
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

Session::Session(const backend::Backend& backend, model::Config config, model::ModelOptions options, StateMemory state,
                 const parallel::Ranks* ranks)
    : ctx_{backend.ops,
           backend.device,
           nullptr,
           layers::act_dtype(options.precision),
           layers::acc_dtype(options.precision),
           -1,
           ranks ? ranks->groups() : layers::Groups{}},
      model_(std::move(config), with_threads(options, backend)),
      weights_(model_, ranks ? ranks->equal(options.mtp) : parallel::EqualRanks{}),
      whole_(whole_model(model_, ranks)),
      norm_meter_(whole_, model_.parameters()),
      update_meter_(whole_, model_.parameters()) {
  model_.set_weight_keeper(&weights_);
  model_.declare(book_);
  weights_.declare(book_);
  if (options.train) norm_meter_.declare(book_), update_meter_.declare(book_, ctx_.acc);
  if (state != StateMemory::kNone) {
    state_tensors_.emplace(model_.parameters(), state == StateMemory::kStaged, whole_.is_counted);
    state_tensors_->declare(book_);
  }
  refuse_if_too_large(book_, backend.device.info());
  arena_ = std::make_unique<backend::Arena>(backend.device, book_);
  ctx_.stream = backend.device.stream_create();
  if (options.part.overlap) ctx_.beside = &comm_queue_.emplace(backend.device);
  model_.prepare(ctx_);
}

Session::~Session() { ctx_.device.stream_destroy(ctx_.stream); }

}  // namespace temper::train
