#include "train/state_tensors.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "parallel/whole.h"

namespace temper::train {

using layers::Parameter;

const View& StateTensors::Tensor::live() const {
  if (kind == Kind::kFirstMoment) return parameter->m;
  if (kind == Kind::kSecondMoment) return parameter->v;
  return parallel::record_of(*parameter);
}

StateTensors::StateTensors(const layers::ParameterList& parameters, bool staging,
                           const std::function<bool(const Parameter&)>& is_written)
    : staging_(staging) {
  for (const Parameter* p : parameters) {
    const auto add = [&](std::string name, Kind kind) {
      tensors_.push_back({std::move(name), p, kind, is_written(*p), std::make_unique<View>()});
    };
    add(p->name, Kind::kWeight);
    if (!p->m.defined()) continue;
    add(p->name + ":m", Kind::kFirstMoment);
    add(p->name + ":v", Kind::kSecondMoment);
  }
}

void StateTensors::declare(Book& book) {
  if (!staging_) return;
  for (const Tensor& tensor : tensors_)
    if (tensor.is_written && tensor.size() > 0)
      book.declare(tensor.staged.get(), TensorKind::kStaging, tensor.name, tensor.live().dtype, {tensor.size()});
}

void StateTensors::stage(const layers::Ctx& ctx) const {
  CHECK(staging_);
  backend::Stream* stream = ctx.device.stream_create();
  for (const Tensor& tensor : tensors_)
    if (tensor.staged->defined()) ctx.device.copy_to_host(stream, tensor.staged->raw(), tensor.live());
  ctx.device.stream_destroy(stream);
}

std::vector<checkpoint::StateTensor> StateTensors::contents() const {
  std::vector<checkpoint::StateTensor> contents;
  contents.reserve(tensors_.size());
  for (const Tensor& tensor : tensors_) {
    if (!tensor.is_written || tensor.size() == 0) continue;
    const View& from = staging_ ? *tensor.staged : tensor.live();
    const auto* data = static_cast<const std::byte*>(from.raw());
    parallel::for_each_stretch(*tensor.parameter, [&](int64_t begin, int64_t at, int64_t count) {
      contents.emplace_back(tensor.name, from.dtype, tensor.parameter->whole_shape(),
                            data + at * dtype_bytes(from.dtype), begin, begin + count);
    });
  }
  return contents;
}

void StateTensors::refuse_others(const layers::Ctx& ctx, const checkpoint::OpenedState& state) const {
  for (const Tensor& tensor : tensors_) {
    const checkpoint::ManifestTensor* stored = state.find(tensor.name);
    const View expected(nullptr, tensor.live().dtype, tensor.parameter->whole_shape());
    if (stored && stored->dtype == expected.dtype && stored->shape == expected.shape) continue;
    fail(ErrorCode::kCorrupt, "the state of step {} has {} for {}, this run {}", state.step(),
         stored ? View(nullptr, stored->dtype, stored->shape).to_string() : "nothing", tensor.name,
         expected.to_string());
  }
  // A tensor counts on the rank that writes its first element.
  int64_t num_tensors = std::count_if(tensors_.begin(), tensors_.end(), [](const Tensor& tensor) {
    bool has_first = false;
    parallel::for_each_stretch(*tensor.parameter,
                               [&](int64_t begin, int64_t, int64_t) { has_first = has_first || begin == 0; });
    return tensor.is_written && has_first;
  });
  if (comm::Comm* world = ctx.groups.world)
    world->all_reduce(nullptr, View(&num_tensors, DType::kI64, {1}), comm::Reduce::kSum, {"tensors of a state"});
  if (static_cast<int64_t>(state.tensors().size()) != num_tensors)
    fail(ErrorCode::kCorrupt, "the state of step {} has {} tensors, this run {}", state.step(), state.tensors().size(),
         num_tensors);
}

void StateTensors::load(layers::Ctx& ctx, model::Model& model, const checkpoint::OpenedState& state) const {
  refuse_others(ctx, state);
  std::vector<std::byte> bytes;
  for (const Tensor& tensor : tensors_) {
    if (tensor.size() == 0) continue;
    const checkpoint::ManifestTensor& stored = *state.find(tensor.name);
    const int64_t element = dtype_bytes(stored.dtype);
    bytes.resize(static_cast<size_t>(tensor.size() * element));
    parallel::for_each_stretch(*tensor.parameter, [&](int64_t begin, int64_t at, int64_t count) {
      state.read(stored, begin, begin + count, bytes.data() + at * element);
    });
    ctx.device.copy_to_device(ctx.stream, tensor.live(), bytes.data());
  }
  model.refresh_values(ctx);
}

}  // namespace temper::train
