#include "train/state_tensors.h"

#include <vector>

#include "base/error.h"

namespace temper::train {

StateTensors::StateTensors(const layers::ParameterList& parameters, bool staging) : staging_(staging) {
  const auto add = [&](std::string name, const View& live) {
    tensors_.push_back({std::move(name), &live, std::make_unique<View>()});
  };
  for (const layers::Parameter* p : parameters) {
    add(p->name, p->master.defined() ? p->master : p->value);
    if (!p->m.defined()) continue;
    add(p->name + ":m", p->m);
    add(p->name + ":v", p->v);
  }
}

void StateTensors::declare(Book& book) {
  if (!staging_) return;
  for (const Tensor& tensor : tensors_)
    book.declare(tensor.staged.get(), TensorKind::kStaging, tensor.name, tensor.live->dtype, tensor.live->shape);
}

void StateTensors::stage(const layers::Ctx& ctx) const {
  CHECK(staging_);
  backend::Stream* stream = ctx.device.stream_create();
  for (const Tensor& tensor : tensors_) ctx.device.copy_to_host(stream, tensor.staged->raw(), *tensor.live);
  ctx.device.stream_destroy(stream);
}

std::vector<checkpoint::StateTensor> StateTensors::contents() const {
  std::vector<checkpoint::StateTensor> contents;
  contents.reserve(tensors_.size());
  for (const Tensor& tensor : tensors_) {
    const View& from = staging_ ? *tensor.staged : *tensor.live;
    contents.push_back({tensor.name, from.dtype, from.shape, from.raw()});
  }
  return contents;
}

void StateTensors::load(layers::Ctx& ctx, model::Model& model, const checkpoint::OpenedState& state) const {
  for (const Tensor& tensor : tensors_) {
    const checkpoint::ManifestTensor* stored = state.find(tensor.name);
    const View& live = *tensor.live;
    if (stored && stored->dtype == live.dtype && stored->shape == live.shape) continue;
    fail(ErrorCode::kCorrupt, "the state of step {} has {} for {}, this run {}", state.step(),
         stored ? View(nullptr, stored->dtype, stored->shape).to_string() : "nothing", tensor.name, live.to_string());
  }
  if (state.tensors().size() != tensors_.size())
    fail(ErrorCode::kCorrupt, "the state of step {} has {} tensors, this run {}", state.step(), state.tensors().size(),
         tensors_.size());
  std::vector<std::byte> bytes;
  for (const Tensor& tensor : tensors_) {
    const checkpoint::ManifestTensor& stored = *state.find(tensor.name);
    bytes.resize(static_cast<size_t>(stored.num_bytes));
    state.read(stored, bytes.data());
    ctx.device.copy_to_device(ctx.stream, *tensor.live, bytes.data());
  }
  model.refresh_values(ctx);
}

}  // namespace temper::train
